"""A request's class of service, to and from the wire."""

from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.clients.wire import duration, seconds
from mesh.facts import Priority
from mesh.requests import ServiceClass

PRIORITIES = {
    Priority.LOW: pb.PRIORITY_LOW,
    Priority.NORMAL: pb.PRIORITY_NORMAL,
    Priority.HIGH: pb.PRIORITY_HIGH,
}
_PRIORITIES = {number: priority for priority, number in PRIORITIES.items()}


def service_to(service: ServiceClass) -> pb.ServiceClass:
    """To the wire."""
    within = None if service.first_token_s is None else duration(service.first_token_s)
    return pb.ServiceClass(tenant=service.tenant, priority=PRIORITIES[service.priority], first_token_within=within)


def service_from(message: pb.ServiceClass) -> ServiceClass:
    """From the wire; a priority that we do not know is a normal one."""
    within_s = seconds(message.first_token_within) if message.HasField("first_token_within") else None
    return ServiceClass(message.tenant, _PRIORITIES.get(message.priority, Priority.NORMAL), within_s)
