"""The line between a gateway and a worker: its messages to and from our records, and the gateway's end of it."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from whimbrel.inference.v1 import inference_pb2
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from mesh.clients.channel import Channels, our_errors
from mesh.clients.sampling_wire import logprob_from, logprob_to, sampling_from, sampling_to
from mesh.requests import Cancel, Farewell, FinishReason, Frame, Grant

FINISHES = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: inference_pb2.FINISH_REASON_CANCELLED,
    FinishReason.ERROR: inference_pb2.FINISH_REASON_ERROR,
}
_FINISHES = {number: reason for reason, number in FINISHES.items()}


class RelayClient:
    """The gateway's end. `send` never waits; iterating gives the frames of each step, until the line breaks."""

    def __init__(self, channels: Channels, address: str, gateway_id: str) -> None:
        self._stub, self._address = WorkerServiceStub(channels.to(address)), address
        self._outgoing: asyncio.Queue[pb.RelayRequest | None] = asyncio.Queue()
        self._outgoing.put_nowait(pb.RelayRequest(hello=pb.Hello(gateway_id=gateway_id)))

    def send(self, command: Grant | Cancel) -> None:
        """Queues a command; they arrive in order."""
        if isinstance(command, Grant):
            self._outgoing.put_nowait(pb.RelayRequest(grant=_grant_to(command)))
        else:
            cancel = pb.Cancel(request_id=command.key, epoch=command.epoch)
            self._outgoing.put_nowait(pb.RelayRequest(cancel=cancel))

    def finish(self) -> None:
        """Nothing more is commanded: the worker ends the line."""
        self._outgoing.put_nowait(None)

    async def frames(self) -> AsyncIterator[Frame | Farewell]:
        """Every frame, and the worker's farewell; raises the MeshError that broke the line."""
        with our_errors(f"worker at {self._address}"):
            async for response in self._stub.Relay(self._commands()):
                for frame in response.frames:
                    yield _frame_from(frame)
                if response.farewell:
                    yield Farewell()

    async def _commands(self) -> AsyncIterator[pb.RelayRequest]:
        while request := await self._outgoing.get():
            yield request


def command_from(request: pb.RelayRequest) -> Grant | Cancel | None:
    """A worker's view of a message; None for one that asks for nothing."""
    match request.WhichOneof("command"):
        case "grant":
            return _grant_from(request.grant)
        case "cancel":
            return Cancel(request.cancel.request_id, request.cancel.epoch)
        case _:
            return None


def response_to(news: Iterable[Frame | Farewell]) -> pb.RelayResponse:
    """What a worker says to the wire."""
    frames = [_frame_to(one) for one in news if isinstance(one, Frame)]
    return pb.RelayResponse(frames=frames, farewell=any(isinstance(one, Farewell) for one in news))


def _frame_to(frame: Frame) -> pb.Frame:
    return pb.Frame(
        request_id=frame.key,
        epoch=frame.epoch,
        seq=frame.seq,
        tokens=frame.tokens,
        finish_reason=FINISHES[frame.finish] if frame.finish else inference_pb2.FINISH_REASON_UNSPECIFIED,
        failure=pb.Failure(reason=frame.failure_reason, message=frame.failure) if frame.failure_reason else None,
        logprobs=[logprob_to(likely) for likely in frame.logprobs],
    )


def _frame_from(frame: pb.Frame) -> Frame:
    return Frame(
        frame.request_id,
        frame.epoch,
        frame.seq,
        tuple(frame.tokens),
        _FINISHES.get(frame.finish_reason),
        frame.failure.reason,
        frame.failure.message,
        tuple(logprob_from(likely) for likely in frame.logprobs),
    )


def _grant_to(grant: Grant) -> pb.Grant:
    return pb.Grant(
        request_id=grant.key,
        epoch=grant.epoch,
        model=grant.model,
        digest=grant.digest,
        prompt=inference_pb2.TokenIds(ids=grant.prompt),
        log=inference_pb2.TokenIds(ids=grant.log),
        sampling=sampling_to(grant.sampling),
    )


def _grant_from(grant: pb.Grant) -> Grant:
    return Grant(
        grant.request_id,
        grant.epoch,
        grant.model,
        grant.digest,
        tuple(grant.prompt.ids),
        tuple(grant.log.ids),
        sampling_from(grant.sampling),
    )
