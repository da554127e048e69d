"""What has been done so far, with the seconds since the beginning, and what failed."""

import time

from benchmarks.report import say


class Progress:
    """Told as it happens: who ends the benchmark early has what was measured until then."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._began_s = time.monotonic()

    def tell(self, line: str) -> None:
        """A line, and when it was reached."""
        say(f"[{time.monotonic() - self._began_s:6.1f} s] {line}")

    def fail(self, name: str, error: Exception) -> None:
        """What cannot be had, which does not stop the others."""
        self.failures.append(f"failed: {name}: {str(error) or type(error).__name__}")
        self.tell(self.failures[-1])
