"""Places that former leaders gave: gateways tell of them, and the leader waits for their word before it decides."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

import structlog

from mesh.clients.holding import Holding
from mesh.facts import Kind
from mesh.requests import HeldPlace
from mesh.state.mirror import Mirror
from policy.view import Spot
from services.scheduler.waiting import WaitingRoom

log = structlog.get_logger()
WORD_S = 0.5  # for a gateway to tell; one that its lease still shows may have died with the former leader


class Line:
    """One gateway's: the places that it has told of. `events` are True for a first message, False for the end."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}  # our numbers by the gateway's
        self.events: asyncio.Queue[bool] = asyncio.Queue()


class Held:
    """All gateways' lines."""

    def __init__(self, mirror: Mirror, room: WaitingRoom, wake: Callable[[], None]) -> None:
        self._mirror, self._room, self._wake = mirror, room, wake
        self._lines: set[Line] = set()
        self._heard: set[str] = set()
        self._news = asyncio.Event()

    async def serve(self, messages: AsyncIterator[Holding]) -> AsyncGenerator[None, None]:
        """One line: a word once the first message is noted; it ends with the gateway or with our lead. Raises why
        nobody may come in."""
        self._room.check_open()
        line = Line()
        self._lines.add(line)
        reader = asyncio.create_task(self._read(line, messages), name="held places")
        reader.add_done_callback(lambda _: line.events.put_nowait(False))
        try:
            while await line.events.get():
                yield None
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
            line.events.put_nowait(False)

    async def _read(self, line: Line, messages: AsyncIterator[Holding]) -> None:
        async for told in messages:
            for place in told.held:
                self._hold(line, place)
            self._release(line, told.released)
            if told.gateway_id:
                self._heard.add(told.gateway_id)
                self._news.set()
                line.events.put_nowait(True)

    def _hold(self, line: Line, place: HeldPlace) -> None:
        """Unless its worker has gone: what comes back under its name is another."""
        worker = self._mirror.facts.members.get(f"{Kind.WORKER}/{place.worker_id}")
        if worker and worker.fence == place.fence and place.number not in line.held:
            spot = Spot(place.worker_id, place.model, place.digest)
            line.held[place.number] = self._room.hold(place, spot)

    def _release(self, line: Line, numbers: Iterable[int]) -> None:
        for number in numbers:
            if ours := line.held.pop(number, None):
                self._room.give_back(ours)
        self._wake()
