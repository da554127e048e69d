"""Which of the requests that lost the same workers those died of. One that had company is not accused yet: it is tried
once more, apart from the others that are suspected."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from services.gateway.trial import Trial

LONGEST_WAIT_S = 5.0  # for those before: one that waits for a place, or whose client reads nothing, holds up no longer


class Suspects:
    """Of one gateway: what others run is not known here."""

    def __init__(self) -> None:
        self._running: set[Trial] = set()
        self._turn = asyncio.Lock()
        self._on_trial: Trial | None = None

    @contextmanager
    def among(self, trial: Trial) -> Iterator[None]:
        """A request that runs while the block does."""
        self._running.add(trial)
        try:
            yield
        finally:
            self._running.discard(trial)

    def had_company(self, trial: Trial) -> bool:
        """Whether another request was on each worker that died while this one came no further, that one now lost
        included, and came no further either."""
        lost = trial.lost | trial.at
        return any(lost <= other.lost | other.at for other in self._running if other is not trial)

    @asynccontextmanager
    async def apart(self, trial: Trial) -> AsyncIterator[None]:
        """A try, which for a suspect begins when no other one is on trial; `heed` ends that early."""
        if trial.suspected:
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await self._turn.acquire()
                    self._on_trial = trial
        try:
            yield
        finally:
            self._next(trial)

    def heed(self, trial: Trial) -> None:
        """It may have come further, and then it is the next one's turn."""
        if self._on_trial is trial and not trial.suspected:
            self._next(trial)

    def _next(self, trial: Trial) -> None:
        if self._on_trial is trial:
            self._on_trial = None
            self._turn.release()
