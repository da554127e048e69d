"""Our errors, and the one table that turns them into gRPC status and google.rpc details, and back.

MeshError
├── InvalidRequest      INVALID_ARGUMENT     a field is wrong; says which
├── NotFound            NOT_FOUND            no such model, checkpoint, file
├── AlreadyExists       ALREADY_EXISTS       the name is taken
├── Conflict            ABORTED              somebody wrote in between; read again
├── StaleFence          ABORTED              a newer leader, or our lease has lapsed
├── Unsuitable          FAILED_PRECONDITION  the thing exists but cannot be used so
├── NoRoom              RESOURCE_EXHAUSTED   full; try again later, or never
├── Unreachable         UNAVAILABLE          a process is gone or starting
├── DataLoss            DATA_LOSS            bytes are not what their hash says
├── Broken              INTERNAL             a fault of ours
└── Expired             DEADLINE_EXCEEDED    the caller's time is up
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "whimbrel.dev"
MESSAGE_BYTES, DETAIL_BYTES, MOST_VIOLATIONS = 800, 200, 10  # trailers above 8 KiB would lose the whole status


@dataclass(frozen=True, slots=True)
class Violation:
    """A request field that is wrong, and why."""

    field: str
    description: str


class MeshError(Exception):
    """An error that a caller can act on. `reason` is for programs, the message for people."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_s: float | None = None,
        violations: tuple[Violation, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_after_s = retry_after_s
        self.violations = violations
        self.metadata = dict(metadata or {})


class InvalidRequest(MeshError):
    """A field of the request is wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"

    @classmethod
    def field(cls, field: str, description: str, *, reason: str | None = None) -> "InvalidRequest":
        """The usual case: one field, one sentence."""
        return cls(f"{field}: {description}", reason=reason, violations=(Violation(field, description),))


class NotFound(MeshError):
    """There is no such thing."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(MeshError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class Conflict(MeshError):
    """Somebody else changed it in between."""

    code = grpc.StatusCode.ABORTED
    default_reason = "ETAG_MISMATCH"


class StaleFence(MeshError):
    """The command, or the writer, has been superseded."""

    code = grpc.StatusCode.ABORTED
    default_reason = "STALE_FENCE"


class Unsuitable(MeshError):
    """It exists, but cannot be used this way."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "UNSUITABLE"


class NoRoom(MeshError):
    """Something is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "NO_ROOM"


class Unreachable(MeshError):
    """A process is gone, or not there yet."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNREACHABLE"


class DataLoss(MeshError):
    """Bytes are not what their hash says."""

    code = grpc.StatusCode.DATA_LOSS
    default_reason = "CORRUPT"


class Broken(MeshError):
    """A fault of ours."""

    code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


class Expired(MeshError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class UnknownStatus(MeshError):
    """A peer answered with a status outside our table."""


TABLE: tuple[type[MeshError], ...] = (
    InvalidRequest, NotFound, AlreadyExists, Conflict, StaleFence,
    Unsuitable, NoRoom, Unreachable, DataLoss, Broken, Expired,
)  # fmt: skip


def to_status(error: MeshError) -> rpc_status._Status:
    """The gRPC status of an error: ErrorInfo always, RetryInfo and BadRequest when there is something to say."""
    metadata = {key: _short(value, DETAIL_BYTES) for key, value in error.metadata.items()}
    packed = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=_short(v.description, DETAIL_BYTES))
            for v in error.violations[:MOST_VIOLATIONS]
        ]
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=fields)))
    message = _short(error.message, MESSAGE_BYTES)
    return rpc_status.to_status(status_pb2.Status(code=error.code.value[0], message=message, details=packed))


LOST_STATUS = "Internal error from Core"
"""What grpc.aio says when a message that we were writing met the end of the call: the peer's status is gone."""


def from_rpc(error: grpc.aio.AioRpcError, peer: str) -> MeshError:
    """The error that a peer's status stands for, so that it can be raised again on this side."""
    code = error.code()
    message = error.details() or f"{peer} answered {code.name}"
    reason, retry_after_s, metadata = None, None, {}
    violations: tuple[Violation, ...] = ()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after_s = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToMilliseconds() / 1e3
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
    if reason is None and _is_broken_off(code, message):
        return Unreachable(f"{peer} ended the call, and why was lost", reason="CALL_ENDED", retry_after_s=1.0)
    if reason is None and code is grpc.StatusCode.UNAVAILABLE:
        message, retry_after_s = f"{peer} cannot be reached: {message}", 1.0
    return kind_of(code, reason)(
        message, reason=reason, retry_after_s=retry_after_s, violations=violations, metadata=metadata
    )


def _is_broken_off(code: grpc.StatusCode, message: str) -> bool:
    """Whether a peer let go of a call without a word; what we cancel ourselves is no error but a cancellation."""
    lost = code is grpc.StatusCode.INTERNAL and message == LOST_STATUS
    return lost or code is grpc.StatusCode.CANCELLED


def kind_of(code: grpc.StatusCode, reason: str | None = None) -> type[MeshError]:
    """Our class for a status; a reason tells apart classes that share one."""
    candidates = [kind for kind in TABLE if kind.code is code]
    exact = [kind for kind in candidates if kind.default_reason == reason]
    return (exact or candidates or [UnknownStatus])[0]


def _short(text: str, most_bytes: int) -> str:
    """Cut to what trailers bear; a caller's own text may be of any length."""
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= most_bytes else raw[:most_bytes].decode(errors="ignore") + "…"


def _pack(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed
