"""A request that another worker owns, and that may go on here: from when it is announced until it is granted here, or
the move is over."""

import asyncio
from collections.abc import Callable

from mesh.moves import Expect, MoveEvent
from services.worker.moving.blocks_in import BlocksIn
from services.worker.moving.lease import Lease

Say = Callable[[MoveEvent], None]


class Expected:
    """One move's. `say` tells its gateway, whose line is `line`; `lease` ends it when nobody is at it any more."""

    def __init__(self, expect: Expect, line: object, say: Say) -> None:
        self.expect, self.line, self.say = expect, line, say
        self.incoming: BlocksIn | None = None  # once there is room
        self.over = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None  # that makes room
        self.lease: Lease | None = None

    @property
    def move_id(self) -> str:
        """Its move's."""
        return self.expect.move_id

    @property
    def engine_id(self) -> str:
        """The engine's name for what has come of it, until it is granted."""
        return f"{self.move_id}>{self.expect.request.key}"

    def heard(self) -> None:
        """Somebody is at it."""
        if self.lease:
            self.lease.renew()

    def end(self) -> None:
        """It is granted, or given up."""
        if self.lease:
            self.lease.end()
        if self.task:
            self.task.cancel()
        self.over.cancel()
