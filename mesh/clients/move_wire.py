"""What is said of moves, to and from our records."""

from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.inference.v1 import inference_pb2
from whimbrel.scheduler.v1 import scheduler_pb2
from whimbrel.worker.v1 import worker_pb2 as pb

from mesh.clients.wire import duration, seconds
from mesh.errors import InvalidRequest
from mesh.moves import AnswerMove, Moved, MoveEvent, MoveFailed, Ready, Reserved, Stopped
from mesh.requests import MoveKind

MOVE_KINDS = {
    MoveKind.KV: inference_pb2.MOVE_KIND_KV,
    MoveKind.TOKENS: inference_pb2.MOVE_KIND_TOKENS,
    MoveKind.REBUILT: inference_pb2.MOVE_KIND_REBUILT,
}
_MOVE_KINDS = {number: kind for kind, number in MOVE_KINDS.items()}


def move_kind_to(kind: MoveKind | None) -> inference_pb2.MoveKind.ValueType:
    """To the wire; None is unspecified."""
    return MOVE_KINDS[kind] if kind else inference_pb2.MOVE_KIND_UNSPECIFIED


def move_kind_from(number: inference_pb2.MoveKind.ValueType) -> MoveKind | None:
    """A kind; None where it is left to others, or we do not know it."""
    return _MOVE_KINDS.get(number)


def move_kind_asked(number: inference_pb2.MoveKind.ValueType) -> MoveKind | None:
    """A kind that somebody asks for, or None. InvalidRequest for one that nobody can."""
    kind = move_kind_from(number)
    if number and kind not in (MoveKind.KV, MoveKind.TOKENS):
        raise InvalidRequest.field("kind", "must be KV, TOKENS or unset")
    return kind


def move_event_to(event: MoveEvent) -> pb.MoveEvent:
    """To the wire."""
    match event:
        case Reserved(move_id, blocks, tokens, fingerprint):
            reserved = pb.Reserved(blocks_there=blocks, tokens_there=tokens, numerics_fingerprint=fingerprint)
            return pb.MoveEvent(move_id=move_id, reserved=reserved)
        case Stopped(move_id, tokens, bytes_sent):
            return pb.MoveEvent(move_id=move_id, stopped=pb.Stopped(tokens=tokens, bytes_sent=bytes_sent))
        case Ready(move_id, tokens):
            return pb.MoveEvent(move_id=move_id, ready=pb.Ready(tokens=tokens))
        case MoveFailed(move_id, reason, message):
            return pb.MoveEvent(move_id=move_id, failed=pb.Failure(reason=reason, message=message))


def move_event_from(message: pb.MoveEvent) -> MoveEvent | None:
    """From the wire; None for one that we do not know."""
    move_id = message.move_id
    match message.WhichOneof("event"):
        case "reserved":
            told = message.reserved
            return Reserved(move_id, told.blocks_there, told.tokens_there, told.numerics_fingerprint)
        case "stopped":
            return Stopped(move_id, message.stopped.tokens, message.stopped.bytes_sent)
        case "ready":
            return Ready(move_id, message.ready.tokens)
        case "failed":
            return MoveFailed(move_id, message.failed.reason, message.failed.message)
        case _:
            return None


def moved_to(moved: Moved) -> scheduler_pb2.MovedRequest:
    """To the wire."""
    return scheduler_pb2.MovedRequest(
        move_id=moved.move_id,
        moved=moved.moved,
        failure_reason=moved.failure_reason,
        failure=moved.failure,
        kind=move_kind_to(moved.kind),
        tokens=moved.tokens,
        tokens_there=moved.tokens_there,
        bytes_sent=moved.bytes_sent,
        transfer=duration(moved.transfer_s),
        took=duration(moved.took_s),
        gap=duration(moved.gap_s),
        exact=moved.exact,
    )


def moved_from(message: scheduler_pb2.MovedRequest) -> Moved:
    """From the wire."""
    return Moved(
        move_id=message.move_id,
        kind=move_kind_from(message.kind),
        tokens=message.tokens,
        tokens_there=message.tokens_there,
        bytes_sent=message.bytes_sent,
        transfer_s=seconds(message.transfer),
        took_s=seconds(message.took),
        gap_s=seconds(message.gap),
        exact=message.exact,
        failure_reason=message.failure_reason,
        failure=message.failure,
    )


def answer_move_to(move: AnswerMove) -> gateway_pb2.AnswerMove:
    """To the wire."""
    return gateway_pb2.AnswerMove(
        index=move.index,
        from_worker_id=move.from_worker_id,
        to_worker_id=move.to_worker_id,
        reason=move.reason,
        kind=move_kind_to(move.kind),
        tokens=move.tokens,
        exact=move.exact,
        gap=duration(move.gap_s),
    )


def answer_move_from(message: gateway_pb2.AnswerMove) -> AnswerMove:
    """From the wire; of a kind that we do not know, the tokens were there at least."""
    return AnswerMove(
        index=message.index,
        from_worker_id=message.from_worker_id,
        to_worker_id=message.to_worker_id,
        reason=message.reason,
        kind=move_kind_from(message.kind) or MoveKind.TOKENS,
        tokens=message.tokens,
        exact=message.exact,
        gap_s=seconds(message.gap),
    )
