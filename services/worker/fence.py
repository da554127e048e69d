"""Which scheduler may command this worker: the newest that has."""

from mesh.errors import StaleFence


class Fence:
    """Remembers the newest fencing token."""

    def __init__(self) -> None:
        self._newest = 0

    def check(self, fence: int) -> None:
        """Raises StaleFence for a command of a scheduler that has been superseded."""
        if fence < self._newest:
            raise StaleFence(f"fence {fence} is older than {self._newest}: another scheduler leads now")
        self._newest = fence
