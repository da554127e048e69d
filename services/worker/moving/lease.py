"""A right that ends by itself unless it is renewed."""

import asyncio
from collections.abc import Callable


class Lease:
    """Begins at once; `on_lapse` is called when it has not been renewed for `length_s`."""

    def __init__(self, length_s: float, on_lapse: Callable[[], None]) -> None:
        self._length_s, self._on_lapse = length_s, on_lapse
        self._timer, self._ended = asyncio.get_running_loop().call_later(length_s, on_lapse), False

    def renew(self) -> None:
        """From now on it lasts its full length again; nothing happens to one that has ended."""
        if not self._ended:
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._length_s, self._on_lapse)

    def suspend(self) -> None:
        """It does not lapse before it is renewed."""
        self._timer.cancel()

    def end(self) -> None:
        """It neither lapses nor is renewed."""
        self._ended = True
        self._timer.cancel()
