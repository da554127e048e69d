"""A request that has come in, checked, as those see it who answer it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mesh.requests import PLAIN, ServiceClass
from services.gateway.strand import Prepared


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `prepared` is for the version that the catalogue points at, and another may answer; of a request that
    goes on, it is for the version that began it."""

    request_id: str
    model: str
    stops: tuple[str, ...]
    arrived_s: float  # time.monotonic
    prepared: Prepared
    prepare: Callable[[str], Awaitable[Prepared]]  # for the version of a digest; MeshErrors when that cannot answer it
    answers: int = 1  # how many to give; number i is drawn with the seed + i
    service: ServiceClass = PLAIN
    received: tuple[tuple[int, ...], ...] = ()  # tokens of each answer that its client has already; (): it is new
