"""Who uses which checkpoint now, by count. What is pinned is neither evicted nor deleted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Pins:
    """One for the whole store; a digest that was never pinned has none."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    @contextmanager
    def hold(self, digest: str) -> Iterator[None]:
        """Pins `digest` while the context is open."""
        self._count[digest] += 1
        try:
            yield
        finally:
            self._count[digest] -= 1
            if not self._count[digest]:
                del self._count[digest]

    def held(self, digest: str) -> bool:
        """Whether anybody uses it."""
        return digest in self._count
