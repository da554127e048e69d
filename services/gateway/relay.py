"""The gateway's line to each worker: one stream, all requests. Grants and cancels go down, frames come up."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from mesh.clients.channel import Channels
from mesh.clients.relay import Command, News, RelayClient
from mesh.errors import Broken, InvalidRequest, MeshError, NoRoom, NotFound, Unreachable, Unsuitable
from mesh.moves import MoveEvent, MoveFailed
from mesh.requests import Cancel, Farewell, Frame
from services.gateway.journal import Journal
from services.gateway.owners import Handover

log = structlog.get_logger()
FAILURES: dict[str, type[MeshError]] = {
    "REPLICA_NOT_RESIDENT": NotFound,
    "PROMPT_TOO_LONG": Unsuitable,
    "QUEUE_FULL": NoRoom,
    "BAD_GUIDE": InvalidRequest,
    "NO_TOKENIZER": Unsuitable,
    "UNREACHABLE": Unreachable,
}


class Line:
    """One worker's stream. It breaks with the worker, and then every journal on it fails."""

    def __init__(self, relay: RelayClient, worker_id: str, on_end: Callable[["Line"], None]) -> None:
        self.address = relay.address
        self._relay, self._worker_id = relay, worker_id
        self._end: MeshError = Unreachable(f"worker {worker_id} closed its stream")
        self._journals: dict[str, tuple[Journal, int]] = {}  # each under the epoch that it was granted here
        self._moves: dict[str, Callable[[MoveEvent], None]] = {}
        self._leaving = self._lost = False
        self._task = asyncio.create_task(self._read(), name=f"line to {worker_id}")
        self._task.add_done_callback(lambda _: on_end(self))

    @property
    def broken(self) -> bool:
        """A broken line is replaced, not mended; so is one whose worker stops."""
        return self._leaving or not self.up

    @property
    def up(self) -> bool:
        """Whether its worker can still be told anything."""
        return not (self._lost or self._task.done())

    def grant(self, journal: Journal, handover: Handover | None = None, move_id: str = "") -> int:
        """Grants the request to this worker under a new epoch, and returns that. Its frames count until `forget`."""
        grant = journal.grant(self._worker_id, handover, move_id)
        self._journals[journal.key] = journal, grant.epoch
        self._relay.send(grant)
        if not self.up:
            journal.fail(grant.epoch, self._loss())
        return grant.epoch

    def cancel(self, key: str, epoch: int) -> None:
        """Ends what the worker has of a request under that epoch, be it running or not."""
        self._relay.send(Cancel(key, epoch))

    def forget(self, key: str) -> None:
        """Its frames come to nobody any more."""
        self._journals.pop(key, None)
        self._finish_if_left()

    def command(self, command: Command) -> None:
        """Says it to the worker."""
        self._relay.send(command)

    @contextmanager
    def moving(self, move_id: str, hear: Callable[[MoveEvent], None]) -> Iterator[None]:
        """Has `hear` called with what the worker says of a move; that it is lost, too."""
        self._moves[move_id] = hear
        if not self.up:
            hear(self._gone(move_id))
        try:
            yield
        finally:
            self._moves.pop(move_id, None)
            self._finish_if_left()

    @contextmanager
    def granted(self, journal: Journal, handover: Handover | None = None) -> Iterator[None]:
        """Grants the request to this worker under a new epoch; leaving early cancels it there."""
        epoch = self.grant(journal, handover)
        try:
            yield
        finally:
            if not journal.finish:
                self.cancel(journal.key, epoch)
            self.forget(journal.key)

    async def close(self) -> None:
        """Ends the stream; the worker cancels what still ran on it."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def give_up(self, error: MeshError) -> None:
        """Its worker is lost, though the line is open."""
        log.warning("line given up", worker=self._worker_id, error=error.message)
        self._end = error
        self._task.cancel()

    async def _read(self) -> None:
        try:
            async for news in self._relay.frames():
                self._take(news)
        except MeshError as error:
            self._end = error
            log.warning("line broken", worker=self._worker_id, error=error.message)
        finally:
            self._lost = True
            for journal, epoch in list(self._journals.values()):
                journal.fail(epoch, self._loss())
            for move_id, hear in list(self._moves.items()):
                hear(self._gone(move_id))

    def _loss(self) -> MeshError:
        return Unreachable(
            f"worker {self._worker_id} was lost ({self._end.message}); send the request again",
            reason="WORKER_LOST" if self._relay.reached else "WORKER_UNREACHABLE",
            retry_after_s=1.0,
            metadata={"worker": self._worker_id},
        )

    def _gone(self, move_id: str) -> MoveFailed:
        return MoveFailed(move_id, "WORKER_LOST", f"worker {self._worker_id} was lost")

    def _finish_if_left(self) -> None:
        if self._leaving and not self._journals and not self._moves:
            self._relay.finish()

    def _take(self, news: News) -> None:
        match news:
            case Frame():
                self._accept(news)
            case Farewell():
                self._leaving = True
                self._finish_if_left()
            case _ if hear := self._moves.get(news.move_id):
                hear(news)

    def _accept(self, frame: Frame) -> None:
        journal, _ = self._journals.get(frame.key, (None, 0))
        if journal is None:
            return  # cancelled meanwhile
        if frame.failure_reason:
            journal.fail(frame.epoch, _failure(frame, self._worker_id))
        else:
            journal.accept(frame)


class Lines:
    """One line a worker, opened when first needed, forgotten when broken."""

    def __init__(self, channels: Channels, gateway_id: str) -> None:
        self._channels, self._gateway_id = channels, gateway_id
        self._lines: dict[str, Line] = {}  # by address: a worker that came back has another
        self._open: set[Line] = set()

    def to(self, worker_id: str, address: str) -> Line:
        """The line to a worker; a broken one is replaced."""
        line = self._lines.get(address)
        if line is None or line.broken:
            relay = RelayClient(self._channels, address, self._gateway_id)
            line = self._lines[address] = Line(relay, worker_id, partial(self._forget, address))
            self._open.add(line)
        return line

    @property
    def open(self) -> tuple[Line, ...]:
        """All of them, those that are replaced but have not ended, too."""
        return tuple(self._open)

    def _forget(self, address: str, line: Line) -> None:
        self._open.discard(line)
        if self._lines.get(address) is line:
            del self._lines[address]

    async def close(self) -> None:
        """Closes all lines."""
        await asyncio.gather(*(line.close() for line in list(self._open)))


def _failure(frame: Frame, worker_id: str) -> MeshError:
    kind = FAILURES.get(frame.failure_reason, Broken)
    return kind(frame.failure, reason=frame.failure_reason, metadata={"worker": worker_id})
