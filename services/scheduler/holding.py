"""Places that former leaders gave: gateways tell of them, and the leader waits for their word before it decides."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial

import structlog

from mesh.clients.holding import Holding
from mesh.facts import Kind
from mesh.moves import Relocation
from mesh.requests import HeldPlace
from mesh.state.mirror import Mirror
from policy.view import Spot
from services.scheduler.waiting import WaitingRoom

log = structlog.get_logger()
WORD_S = 0.5  # for a gateway to tell; one that its lease still shows may have died with the former leader


@dataclass(frozen=True, slots=True)
class Word:
    """What a gateway is told: that its first message is noted, or that a place of its is to go on elsewhere."""

    number: int = 0
    relocation: Relocation | None = None


class Line:
    """One gateway's: the places that it has told of. Words come out in order; None is the end."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}  # our numbers by the gateway's
        self.words: asyncio.Queue[Word | None] = asyncio.Queue()

    def relocate(self, number: int, relocation: Relocation) -> None:
        """A place is to go on elsewhere."""
        self.words.put_nowait(Word(number, relocation))


class Held:
    """All gateways' lines."""

    def __init__(self, mirror: Mirror, room: WaitingRoom, wake: Callable[[], None]) -> None:
        self._mirror, self._room, self._wake = mirror, room, wake
        self._lines: set[Line] = set()
        self._heard: set[str] = set()
        self._news = asyncio.Event()

    async def serve(self, messages: AsyncIterator[Holding]) -> AsyncGenerator[Word, None]:
        """One line: an empty word once the first message is noted, then those of relocations. It ends with the gateway
        or with our lead. Raises why nobody may come in."""
        self._room.check_open()
        line = Line()
        self._lines.add(line)
        reader = asyncio.create_task(self._read(line, messages), name="held places")
        reader.add_done_callback(lambda _: line.words.put_nowait(None))
        try:
            while word := await line.words.get():
                yield word
        finally:
            reader.cancel()
            self._lines.discard(line)
            self._release(line, list(line.held))

    async def known(self) -> None:
        """Returns once every gateway has said which places it holds, or has had its time to."""
        gateways = {f"{member.id}.{member.fence}" for member in self._mirror.facts.of_kind(Kind.GATEWAY)}
        try:
            async with asyncio.timeout(WORD_S):
                while not gateways <= self._heard:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("gateways do not say which places they hold", gateways=sorted(gateways - self._heard))

    def close(self) -> None:
        """Ends every line: somebody else leads, and will be told."""
        self._heard.clear()
        for line in self._lines:
            line.words.put_nowait(None)

    async def _read(self, line: Line, messages: AsyncIterator[Holding]) -> None:
        async for told in messages:
            for place in told.held:
                self._hold(line, place)
            self._release(line, told.released)
            if told.gateway_id:
                self._heard.add(told.gateway_id)
                self._news.set()
                line.words.put_nowait(Word())

    def _hold(self, line: Line, place: HeldPlace) -> None:
        """Unless its worker has gone: what comes back under its name is another. One that was told before has gone on
        there."""
        worker = self._mirror.facts.members.get(f"{Kind.WORKER}/{place.worker_id}")
        if worker is None or worker.fence != place.fence:
            return
        spot, number = Spot(place.worker_id, place.model, place.digest), place.number
        if ours := line.held.get(number):
            self._room.went_on(ours, spot)
        else:
            line.held[number] = self._room.hold(place, spot, partial(line.relocate, number))

    def _release(self, line: Line, numbers: Iterable[int]) -> None:
        for number in numbers:
            if ours := line.held.pop(number, None):
                self._room.give_back(ours)
        self._wake()
