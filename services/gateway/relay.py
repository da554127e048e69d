"""The gateway's line to each worker: one stream, all requests. Grants and cancels go down, frames come up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import structlog
from whimbrel.inference.v1 import inference_pb2
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from mesh.clients.channel import Channels, our_errors
from mesh.errors import Broken, MeshError, NoRoom, NotFound, Unreachable, Unsuitable
from mesh.requests import FinishReason, Sampling
from services.gateway.journal import Journal, Proposal

log = structlog.get_logger()
FINISHES = {
    inference_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    inference_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    inference_pb2.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
    inference_pb2.FINISH_REASON_ERROR: FinishReason.ERROR,
}


class Line:
    """One worker's stream. It breaks with the worker, and then every journal on it fails."""

    def __init__(self, channels: Channels, worker_id: str, address: str, gateway_id: str) -> None:
        self._worker_id, self._address = worker_id, address
        self._stub = WorkerServiceStub(channels.to(address))
        self._outgoing: asyncio.Queue[pb.RelayRequest] = asyncio.Queue()
        self._outgoing.put_nowait(pb.RelayRequest(hello=pb.Hello(gateway_id=gateway_id)))
        self._journals: dict[str, Journal] = {}
        self._task = asyncio.create_task(self._read(), name=f"line to {worker_id}")

    @property
    def broken(self) -> bool:
        """A broken line is replaced, not mended."""
        return self._task.done()

    @contextmanager
    def granted(self, journal: Journal) -> Iterator[None]:
        """Grants the request to this worker under a new epoch; leaving early cancels it there."""
        epoch = journal.grant()
        self._journals[journal.key] = journal
        self._outgoing.put_nowait(pb.RelayRequest(grant=_grant(journal)))
        try:
            yield
        finally:
            self._journals.pop(journal.key, None)
            if not journal.finish:
                self._outgoing.put_nowait(pb.RelayRequest(cancel=pb.Cancel(request_id=journal.key, epoch=epoch)))

    async def close(self) -> None:
        """Ends the stream; the worker cancels what still ran on it."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _commands(self) -> AsyncIterator[pb.RelayRequest]:
        while True:
            yield await self._outgoing.get()

    async def _read(self) -> None:
        error: MeshError = Unreachable(f"worker {self._worker_id} closed its stream")
        try:
            with our_errors(f"worker {self._worker_id}"):
                async for response in self._stub.Relay(self._commands()):
                    for frame in response.frames:
                        self._take(frame)
        except MeshError as broken:
            error = broken
            log.warning("line broken", worker=self._worker_id, error=error.message)
        finally:
            for journal in list(self._journals.values()):
                journal.fail(journal.epoch, _lost(self._worker_id, error))

    def _take(self, frame: pb.Frame) -> None:
        journal = self._journals.get(frame.request_id)
        if journal is None:
            return  # cancelled meanwhile
        if frame.HasField("failure"):
            journal.fail(frame.epoch, _failure(frame.failure, self._worker_id))
            return
        finish = FINISHES.get(frame.finish_reason)
        journal.accept(Proposal(frame.epoch, frame.seq, tuple(frame.tokens), finish))


class Lines:
    """One line a worker, opened when first needed."""

    def __init__(self, channels: Channels, gateway_id: str) -> None:
        self._channels, self._gateway_id = channels, gateway_id
        self._lines: dict[str, Line] = {}  # by address: a worker that came back has another

    def to(self, worker_id: str, address: str) -> Line:
        """The line to a worker; a broken one is replaced."""
        line = self._lines.get(address)
        if line is None or line.broken:
            line = self._lines[address] = Line(self._channels, worker_id, address, self._gateway_id)
        return line

    async def close(self) -> None:
        """Closes all lines."""
        await asyncio.gather(*(line.close() for line in self._lines.values()))


def _lost(worker_id: str, error: MeshError) -> MeshError:
    return Unreachable(
        f"worker {worker_id} was lost ({error.message}); send the request again",
        reason="WORKER_LOST",
        retry_after_s=1.0,
        metadata={"worker": worker_id},
    )


def _failure(failure: pb.Failure, worker_id: str) -> MeshError:
    kind = FAILURES.get(failure.reason, Broken)
    return kind(failure.message, reason=failure.reason, metadata={"worker": worker_id})


FAILURES: dict[str, type[MeshError]] = {
    "REPLICA_NOT_RESIDENT": NotFound,
    "REPLICA_UNLOADED": Unreachable,
    "PROMPT_TOO_LONG": Unsuitable,
    "POOL_TOO_SMALL": NoRoom,
}


def _grant(journal: Journal) -> pb.Grant:
    return pb.Grant(
        request_id=journal.key,
        epoch=journal.epoch,
        model=journal.model,
        prompt=inference_pb2.TokenIds(ids=journal.prompt),
        log=inference_pb2.TokenIds(ids=journal.tokens),
        sampling=_sampling(journal.sampling),
    )


def _sampling(sampling: Sampling) -> inference_pb2.SamplingParams:
    return inference_pb2.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop_token_ids=sampling.stop_token_ids,
    )
