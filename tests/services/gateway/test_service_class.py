"""Classes of service: what is taken, what is refused."""

import pytest
from google.protobuf.duration_pb2 import Duration
from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.clients.service_wire import service_to
from mesh.errors import InvalidRequest
from mesh.facts import Priority
from mesh.requests import ServiceClass
from services.gateway.service_class import service_class


def test_nothing_asked_for_is_a_normal_request_that_waits() -> None:
    assert service_class(pb.ServiceClass()) == ServiceClass("", Priority.NORMAL, None)


@pytest.mark.parametrize("priority", Priority)
def test_what_is_asked_for_comes_through(priority: Priority) -> None:
    asked = ServiceClass("waders", priority, first_token_s=0.25)
    assert service_class(service_to(asked)) == asked


def test_every_wrong_field_is_named_at_once() -> None:
    asked = pb.ServiceClass(tenant="a\nb", priority=9, first_token_within=Duration())  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as refused:
        service_class(asked)
    assert refused.value.reason == "BAD_SERVICE_CLASS"
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["service_class.tenant", "service_class.priority", "service_class.first_token_within"]


@pytest.mark.parametrize("asked", [{"tenant": "x" * 129}, {"first_token_within": Duration(seconds=86401)}])
def test_what_is_too_long_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="at most"):
        service_class(pb.ServiceClass(**asked))  # type: ignore[arg-type]


def test_as_time_passes_less_is_left_and_never_less_than_nothing() -> None:
    service = ServiceClass("waders", first_token_s=2.0)
    assert service.after(0.5) == ServiceClass("waders", first_token_s=1.5)
    assert service.after(3.0).first_token_s == 0.0
    assert ServiceClass("waders").after(3.0) == ServiceClass("waders")
