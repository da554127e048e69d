"""The line between a gateway and a worker: its messages to and from our records, and the gateway's end of it."""

from collections.abc import AsyncIterator, Iterable, Iterator

from whimbrel.inference.v1 import inference_pb2
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from mesh.clients.channel import Channels, our_errors
from mesh.clients.move_wire import move_event_from, move_event_to, move_kind_from, move_kind_to
from mesh.clients.outgoing import Outgoing
from mesh.clients.sampling_wire import logprob_from, logprob_to, sampling_from, sampling_to
from mesh.moves import Abandon, Expect, MoveEvent, Send
from mesh.requests import Cancel, Farewell, FinishReason, Frame, Grant, MoveKind

FINISHES = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: inference_pb2.FINISH_REASON_CANCELLED,
    FinishReason.ERROR: inference_pb2.FINISH_REASON_ERROR,
}
Command = Grant | Cancel | Expect | Send | Abandon
News = Frame | Farewell | MoveEvent
_FINISHES = {number: reason for reason, number in FINISHES.items()}


class RelayClient:
    """The gateway's end. `send` never waits; iterating gives the frames of each step, until the line breaks."""

    def __init__(self, channels: Channels, address: str, gateway_id: str) -> None:
        self._stub, self.address = WorkerServiceStub(channels.to(address)), address
        self._outgoing = Outgoing(pb.RelayRequest(hello=pb.Hello(gateway_id=gateway_id)))
        self.reached = False  # whether the worker was ever there

    def send(self, command: Command) -> None:
        """Queues a command; they arrive in order."""
        self._outgoing.say(_command_to(command))

    def finish(self) -> None:
        """Nothing more is commanded: the worker ends the line."""
        self._outgoing.finish()

    async def frames(self) -> AsyncIterator[News]:
        """Every frame, how moves go, and the worker's farewell; raises the MeshError that broke the line. A move's
        event comes after the frames that its worker had said before."""
        with our_errors(f"worker at {self.address}"):
            call = self._stub.Relay(self._outgoing.messages())
            self._outgoing.end_with(call)
            try:
                await call.wait_for_connection()
                self.reached = True
                async for response in call:
                    for news in _news_from(response):
                        yield news
            finally:
                call.cancel()


def command_from(request: pb.RelayRequest) -> Command | None:
    """A worker's view of a message; None for one that asks for nothing."""
    match request.WhichOneof("command"):
        case "grant":
            return _grant_from(request.grant)
        case "cancel":
            return Cancel(request.cancel.request_id, request.cancel.epoch)
        case "expect":
            kind = move_kind_from(request.expect.kind) or MoveKind.TOKENS
            return Expect(request.expect.move_id, _grant_from(request.expect.request), kind)
        case "send":
            send = request.send
            return Send(send.move_id, send.request_id, send.epoch, send.target_address, send.blocks_there)
        case "abandon":
            return Abandon(request.abandon.move_id)
        case _:
            return None


def _news_from(response: pb.RelayResponse) -> Iterator[News]:
    for frame in response.frames:
        yield _frame_from(frame)
    for event in response.moves:
        if told := move_event_from(event):
            yield told
    if response.farewell:
        yield Farewell()


def response_to(news: Iterable[News]) -> pb.RelayResponse:
    """What a worker says to the wire: of its frames and moves, the moves' events count as later."""
    response = pb.RelayResponse()
    for one in news:
        if isinstance(one, Frame):
            response.frames.append(_frame_to(one))
        elif isinstance(one, Farewell):
            response.farewell = True
        else:
            response.moves.append(move_event_to(one))
    return response


def _command_to(command: Command) -> pb.RelayRequest:
    match command:
        case Grant():
            return pb.RelayRequest(grant=_grant_to(command))
        case Cancel(key, epoch):
            return pb.RelayRequest(cancel=pb.Cancel(request_id=key, epoch=epoch))
        case Expect(move_id, grant, kind):
            expect = pb.Expect(move_id=move_id, request=_grant_to(grant), kind=move_kind_to(kind))
            return pb.RelayRequest(expect=expect)
        case Send():
            return pb.RelayRequest(send=_send_to(command))
        case Abandon(move_id):
            return pb.RelayRequest(abandon=pb.Abandon(move_id=move_id))


def _send_to(send: Send) -> pb.Send:
    return pb.Send(
        move_id=send.move_id,
        request_id=send.key,
        epoch=send.epoch,
        target_address=send.target_address,
        blocks_there=send.blocks_there,
    )


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
        move_id=grant.move_id,
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
        grant.move_id,
    )
