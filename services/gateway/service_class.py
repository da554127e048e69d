"""The class of service that a client asks for, checked."""

from collections.abc import Iterator

from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.clients.service_wire import service_from
from mesh.clients.wire import seconds
from mesh.errors import InvalidRequest, Violation
from mesh.requests import ServiceClass

LONGEST_TENANT = 128
LONGEST_WAIT_S = 24 * 3600.0


def service_class(asked: pb.ServiceClass) -> ServiceClass:
    """The class; InvalidRequest names every field that is wrong."""
    wrong = tuple(Violation(f"service_class.{field}", why) for field, why in _wrong(asked))
    if wrong:
        message = "; ".join(f"{violation.field} {violation.description}" for violation in wrong)
        raise InvalidRequest(message, reason="BAD_SERVICE_CLASS", violations=wrong)
    return service_from(asked)


def _wrong(asked: pb.ServiceClass) -> Iterator[tuple[str, str]]:
    if len(asked.tenant) > LONGEST_TENANT or not asked.tenant.isprintable():
        yield "tenant", f"must be at most {LONGEST_TENANT} printable characters"
    if asked.priority not in pb.Priority.values():
        yield "priority", "must be LOW, NORMAL, HIGH or unset"
    if asked.HasField("first_token_within") and not 0.0 < seconds(asked.first_token_within) <= LONGEST_WAIT_S:
        yield "first_token_within", f"must be above 0 s and at most {LONGEST_WAIT_S:.0f} s, or unset"
