"""What this worker says of itself, kept true in Redis: changes of life at once, changes of load ten times a second."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mesh.facts import WorkerFacts
from mesh.state.leases import Membership

LOAD_PERIOD_S = 0.1


class Report:
    """Publishes `facts()` when told that something changed."""

    def __init__(self, membership: Membership, facts: Callable[[], WorkerFacts]) -> None:
        self._membership, self._facts = membership, facts
        self._timer: asyncio.TimerHandle | None = None

    def life(self) -> None:
        """A replica came, changed state or went: schedulers wait for this."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._membership.publish(replace(self._membership.member, worker=self._facts()))

    def load(self) -> None:
        """A request began or ended: worth telling, soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOAD_PERIOD_S, self.life)
