"""Who uses which checkpoint now, by count. What is pinned is neither evicted nor deleted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pins:
    """One for the whole store; a digest that was never pinned has none."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._after: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)

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
                for action in self._after.pop(digest, []):
                    action()

    def held(self, digest: str) -> bool:
        """Whether anybody uses it."""
        return digest in self._count

    def when_free(self, digest: str, action: Callable[[], None]) -> None:
        """Calls `action` once nobody uses it: now, or at the end of the last use."""
        if self.held(digest):
            self._after[digest].append(action)
        else:
            action()
