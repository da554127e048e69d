"""A request that runs at one worker and is to go on at another: both, and its scheduler, are played by the test."""

import asyncio
from contextlib import aclosing

from mesh.moves import Ready, Relocation, Reserved, Send, Stopped
from mesh.requests import FinishReason, Frame, Grant, MoveKind
from services.gateway.answer import Event, Finished
from services.gateway.asked import Asked
from services.gateway.strand import Delta
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, FakeScheduler, FakeWorker, placement
from tests.services.gateway.test_answer import asked, ids, text_of

MOVE = "move-1"
PART = f"{MOVE}/0"


class Stage:
    """The answer " flies" has been read from `source` when it begins."""

    def __init__(self, bench: Bench, scheduler: FakeScheduler, source: FakeWorker, target: FakeWorker) -> None:
        self.bench, self.scheduler, self.source, self.target = bench, scheduler, source, target
        self.events: list[Event] = []
        self.said = asyncio.Event()

    async def begin(self, request: Asked, fence: int = 1) -> Grant:
        """Has the source granted, and its first tokens read."""
        self.scheduler.answers.put_nowait(placement("w1", self.source.address, fence))
        self.running = asyncio.create_task(self._read(request))
        self.grant = await self.source.granted()
        self.source.say(self.frame(self.grant, 0, " flies"))
        await self.reads(" flies")
        return self.grant

    async def _read(self, request: Asked) -> None:
        async with aclosing(self.bench.answers.run(request)) as events:
            async for event in events:
                self.events.append(event)
                self.said.set()

    def frame(self, grant: Grant, seq: int, text: str, finish: FinishReason | None = None) -> Frame:
        """A frame under a grant."""
        return Frame(grant.key, grant.epoch, seq, ids(text), finish)

    def relocate(self, kind: MoveKind | None = MoveKind.KV, reason: str = "drain") -> None:
        """The scheduler has the request go on at the target."""
        target = placement("w2", self.target.address, fence=2)
        self.scheduler.relocations.put_nowait(Relocation(MOVE, target, reason, kind))

    async def reads(self, text: str) -> None:
        """Waits until the client has read that much."""
        async with asyncio.timeout(WAIT_S):
            while text_of(self.events) != text:
                self.said.clear()
                await self.said.wait()

    async def copying(self, fingerprint: str = "") -> Send:
        """Until the source is told to send its KV."""
        self.relocate()
        await self.target.expects()
        self.target.say(Reserved(PART, 2, 32, fingerprint))
        return await self.source.sends()

    async def stopped(self) -> None:
        """Until the source stands still, with " over" as its last."""
        await self.copying()
        self.source.say(self.frame(self.grant, len(ids(" flies")), " over"), Stopped(PART, 9, 4096))
        await self.reads(" flies over")

    async def granted(self) -> Grant:
        """Until the target is granted it."""
        await self.stopped()
        self.target.say(Ready(PART, 40))
        return await self.target.granted()

    async def ends(self) -> Finished:
        """The end, in good time."""
        async with asyncio.timeout(WAIT_S):
            await self.running
        end = self.events[-1]
        assert isinstance(end, Finished)
        return end

    @property
    def tokens(self) -> tuple[int, ...]:
        """All that the client has read."""
        deltas = [event for event in self.events if isinstance(event, Delta)]
        assert [delta.seq for delta in deltas] == [sum(len(d.tokens) for d in deltas[:n]) for n in range(len(deltas))]
        return sum((delta.tokens for delta in deltas), ())


async def stage(bench: Bench, *stops: str) -> Stage:
    """With its first tokens read."""
    stage = Stage(bench, await bench.scheduler(), await bench.worker(), await bench.worker())
    await stage.begin(asked(*stops))
    return stage
