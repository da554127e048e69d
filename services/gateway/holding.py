"""Places that outlive the scheduler which gave them: whoever leads next is told of them, until their requests end."""

import asyncio
import itertools
from dataclasses import replace
from functools import partial

import structlog

from mesh.clients.channel import Channels
from mesh.clients.holding import HoldingClient
from mesh.errors import MeshError
from mesh.facts import Leader
from mesh.moves import Relocation
from mesh.requests import HeldPlace, Placement, Wish
from mesh.state.mirror import Mirror
from services.gateway.leading import Leading

log = structlog.get_logger()
PATIENCE_S = 0.2


class Place:
    """One place, from its placement to its request's end; a move takes it elsewhere."""

    def __init__(self, holding: "Holding", held: HeldPlace) -> None:
        self._holding, self._held = holding, held
        self._ended = False
        self.relocations: asyncio.Queue[tuple[Leader, Relocation]] = asyncio.Queue()  # by who has been told of it

    def follow(self, target: Placement) -> None:
        """Its request goes on there."""
        self._held = self._holding.instead(self._held, target)

    def orphaned(self) -> None:
        """Its scheduler has ended the stream that held it; a request that has ended holds nothing."""
        if not self._ended:
            self._holding.add(self._held, self)

    def end(self) -> None:
        """Gives it back."""
        self._ended = True
        self._holding.drop(self._held)


class Holding:
    """A gateway's places whose Assign streams have ended before their requests."""

    def __init__(self, mirror: Mirror, leading: Leading, channels: Channels, gateway_id: str) -> None:
        self._mirror, self._leading, self._channels, self._gateway_id = mirror, leading, channels, gateway_id
        self._numbers = itertools.count()
        self._orphans: dict[int, tuple[HeldPlace, Place]] = {}
        self._line: HoldingClient | None = None

    def place(self, wish: Wish, at: Placement) -> Place:
        """Keeps account of a place that has just been given."""
        number = next(self._numbers)
        held = HeldPlace(
            number,
            at.worker_id,
            at.fence,
            wish.model,
            at.digest,
            wish.service,
            wish.prompt_tokens,
            request_id=wish.request_id,
            stays=wish.stays,
        )
        return Place(self, held)

    def add(self, held: HeldPlace, place: Place) -> None:
        """A place that nobody knows of who leads."""
        self._orphans[held.number] = held, place
        if self._line:
            self._line.tell(held=[held])

    def instead(self, held: HeldPlace, target: Placement) -> HeldPlace:
        """The place at the target in place of one elsewhere; whoever was told of that one is told of this."""
        moved = replace(held, worker_id=target.worker_id, fence=target.fence, digest=target.digest)
        if orphan := self._orphans.get(held.number):
            self._orphans[held.number] = moved, orphan[1]
            if self._line:
                self._line.tell(held=[moved])
        return moved

    def drop(self, held: HeldPlace) -> None:
        """A request has ended; whoever was told of its place is told of that."""
        if self._orphans.pop(held.number, None) and self._line:
            self._line.tell(released=[held.number])

    async def announce(self) -> None:
        """Tells each scheduler that comes to lead, the first one too: it waits for our word before it decides."""
        while True:
            with self._mirror.watching() as changed:
                while (leader := self._mirror.facts.leader) is None:
                    changed.clear()
                    await changed.wait()
            try:
                async with self._leading.under(leader):
                    await self._announce_to(leader)
            except MeshError as error:
                log.info("a scheduler keeps no places", scheduler=leader.id, error=error.message)
            await self._mirror.until(lambda facts: facts.leader not in (None, leader), PATIENCE_S)

    async def _announce_to(self, leader: Leader) -> None:
        held = [held for held, _ in self._orphans.values()]
        self._line = HoldingClient(self._channels, leader.address, self._gateway_id, held)
        try:
            await self._line.run(partial(self._relocate, leader))
        finally:
            self._line = None

    def _relocate(self, leader: Leader, number: int, relocation: Relocation) -> None:
        if orphan := self._orphans.get(number):
            orphan[1].relocations.put_nowait((leader, relocation))
