"""What processes find at the points of a move that they reach, in a directory that all of them look into."""

from dataclasses import dataclass
from pathlib import Path

from mesh.faults import Point
from tests.e2e.asking import until


@dataclass(frozen=True, slots=True)
class Orders:
    """See mesh/faults.py."""

    directory: Path

    def give(self, point: Point, what: str) -> None:
        """`kill` or `hold`, once, for the first that gets there."""
        (self.directory / point).write_text(what)

    def taken(self, point: Point) -> bool:
        """Whether somebody got there."""
        return not (self.directory / point).exists()

    async def held(self, point: Point) -> None:
        """Returns when somebody stands still there."""

        async def there() -> bool:
            return self._held(point).exists()

        await until(there, bool)

    def go_on(self, point: Point) -> None:
        """To whoever stands still there."""
        self._held(point).unlink()

    def clear(self) -> None:
        """Nobody dies any more, or stands still."""
        for path in self.directory.iterdir():
            path.unlink(missing_ok=True)

    def _held(self, point: Point) -> Path:
        return self.directory / f"{point}.held"
