"""A request that another worker owns, and that may go on here: from when it is announced until it is granted here, or
the move is over."""

import asyncio
from collections.abc import Callable, Coroutine

from mesh.moves import Expect, MoveEvent, Ready, Reserved
from services.worker.moving import measures
from services.worker.moving.blocks_in import BlocksIn
from services.worker.moving.lease import Lease
from services.worker.moving.state_in import StateIn

Say = Callable[[MoveEvent], None]


class Expected:
    """One move's. `say` tells its gateway, whose line is `line`; `lease` ends it when nobody is at it any more."""

    def __init__(self, expect: Expect, line: object, say: Say, lease_s: float, on_lapse: Callable[[], None]) -> None:
        self.expect, self.line, self.say = expect, line, say
        self.incoming: BlocksIn | StateIn | None = None  # once there is room for what is sent
        self.over = asyncio.get_running_loop().create_future()
        self.lease = Lease(lease_s, on_lapse)
        self._task: asyncio.Task[None] | None = None
        self._reserved, self._began_s = False, asyncio.get_running_loop().time()
        self._early: Ready | None = None

    @property
    def move_id(self) -> str:
        """Its move's."""
        return self.expect.move_id

    @property
    def engine_id(self) -> str:
        """The engine's name for what has come of it, until it is granted."""
        return f"{self.move_id}>{self.expect.request.key}"

    def reserved(self, event: Reserved) -> None:
        """There is room."""
        self._reserved = True
        self.say(event)
        if self._early:
            self.ready(self._early)

    def ready(self, event: Ready) -> None:
        """All is there. It is said after Reserved, however soon that is."""
        self._early = None if self._reserved else event
        if self._reserved:
            self.lease.renew()
            self.say(event)

    def prepare(self, work: Coroutine[object, object, None]) -> None:
        """Does what was asked last; what was asked before is not done any more."""
        if self._task:
            self._task.cancel()
        self._task = asyncio.create_task(work, name=f"preparing {self.move_id}")

    @property
    def prepared(self) -> bool:
        """Whether nothing is being done."""
        return self._task is None or self._task.done()

    def end(self, outcome: str) -> None:
        """It is granted, or given up."""
        took_s = asyncio.get_running_loop().time() - self._began_s
        measures.ended(measures.TARGET, self.expect.kind, outcome, took_s)
        self.lease.end()
        if self._task:
            self._task.cancel()
        self.over.cancel()
