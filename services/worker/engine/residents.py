"""Who is on the engine: replicas, the adapters on them, and the replica of each unfinished request."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from services.worker.engine.embed_queue import EmbedQueue
from services.worker.engine.errors import (
    DuplicateReplica,
    DuplicateRequest,
    QueueFull,
    UnknownReplica,
    UnknownRequest,
)
from services.worker.engine.kv_share import KVShare
from services.worker.engine.replica import Replica
from services.worker.engine.request import EngineRequest, TokenStep


@dataclass(slots=True, eq=False)
class Resident:
    """A replica and its share of the engine."""

    replica: Replica
    weight: float
    kv_share: KVShare | None
    served_s: float = 0.0  # virtual time: seconds of steps by weight, never behind those that had work meanwhile
    requests: int = 0  # submitted and not finished
    embeddings: EmbedQueue = field(default_factory=EmbedQueue)
    embedded_last: bool = False

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return self.replica.has_work or self.embeddings.has_work

    def step(self) -> list[TokenStep]:
        """Tokens and embeddings by turns, where there are both."""
        self.embedded_last = self.embeddings.has_work and not (self.replica.has_work and self.embedded_last)
        if self.embedded_last:
            self.embeddings.advance(self.replica.embed)
            return []
        return self.replica.step()


class Residents:
    """Whoever calls holds the engine's lock. `most` bounds the unfinished requests of each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._replicas: dict[str, Resident] = {}
        self._adapted: dict[str, Resident] = {}  # the replica that each adapter is on
        self._homes: dict[str, Resident] = {}  # of each unfinished request

    def __iter__(self) -> Iterator[Resident]:
        return iter(self._replicas.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Of the replicas."""
        return tuple(self._replicas)

    @property
    def by_name(self) -> dict[str, Replica]:
        """The replica behind each name, adapters' too."""
        return {name: one.replica for name, one in (self._replicas | self._adapted).items()}

    def add(self, resident: Resident) -> None:
        """From now on its name is taken; DuplicateReplica if it is already."""
        self.check_free(resident.replica.name)
        self._replicas[resident.replica.name] = resident

    def adapt(self, name: str, resident: Resident) -> None:
        """From now on the name is that of an adapter on a resident; UnknownReplica if that has gone."""
        if self._replicas.get(resident.replica.name) is not resident:
            raise UnknownReplica(f"{resident.replica.name} has just been removed")
        self._adapted[name] = resident

    def remove(self, name: str) -> Resident:
        """Forgets a replica, with its adapters, or an adapter; its unfinished requests are still known."""
        resident = self.of(name)
        if self._replicas.pop(name, None):
            self._adapted = {adapter: home for adapter, home in self._adapted.items() if home is not resident}
        self._adapted.pop(name, None)
        return resident

    def of(self, name: str) -> Resident:
        """By a replica's name or an adapter's; UnknownReplica."""
        if resident := self._find(name):
            return resident
        raise UnknownReplica(f"no replica of {name} is resident")

    def check_free(self, name: str) -> None:
        """DuplicateReplica unless nobody has this name."""
        if self._find(name):
            raise DuplicateReplica(f"{name} is resident already; remove it first")

    def check_still(self, name: str, resident: Resident) -> None:
        """UnknownReplica unless the name is still that of `resident`."""
        if self._find(name) is not resident:
            raise UnknownReplica(f"{name} has just been removed")

    def take_in(self, request: EngineRequest, resident: Resident) -> None:
        """A request begins there. UnknownReplica, DuplicateRequest or QueueFull."""
        self.check_still(request.replica, resident)
        if request.request_id in self._homes:
            raise DuplicateRequest(f"request {request.request_id} is running already")
        if resident.requests >= self._most:
            raise QueueFull(f"{request.replica} has {resident.requests} requests; try later or elsewhere")
        resident.requests += 1
        self._homes[request.request_id] = resident

    def home(self, request_id: str) -> Resident:
        """Where an unfinished request is; UnknownRequest."""
        try:
            return self._homes[request_id]
        except KeyError:
            raise UnknownRequest(f"no request {request_id} is here; it may have ended") from None

    def let_go(self, request_id: str) -> None:
        """A request has ended."""
        self._homes.pop(request_id).requests -= 1

    def finished(self, steps: Iterable[TokenStep]) -> None:
        """Some of these end their requests."""
        for step in steps:
            if step.finish is not None:
                self.let_go(step.request_id)

    def _find(self, name: str) -> Resident | None:
        return self._replicas.get(name) or self._adapted.get(name)
