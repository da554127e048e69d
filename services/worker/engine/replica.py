"""What the engine asks of a replica, whichever runner is inside."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from mesh.requests import Pooling
from services.worker.engine.adapter import Adapter
from services.worker.engine.request import EngineRequest, ReplicaStats, TokenStep


class Replica(Protocol):
    """A resident, runnable model. Built on any thread; from add_replica on, only the engine's thread calls what
    changes it."""

    @property
    def name(self) -> str:
        """The engine's name for it."""

    @property
    def module(self) -> PreTrainedModel:
        """The model, its weights assigned: what adapters are made for."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""

    def check(self, request: EngineRequest) -> None:
        """Raise RequestRefused if this replica can never run `request`, however idle. Changes nothing; any thread."""

    def stats(self, name: str = "") -> ReplicaStats:
        """A snapshot; callable from any thread. With the name of an adapter here, or its own: of the requests for that
        alone; the counters and blocks are of all together."""

    def add_adapter(self, adapter: Adapter) -> None:
        """From now on requests may ask for it, by its name. UnsupportedAdapter if this runner has none."""

    def remove_adapter(self, name: str) -> list[TokenStep]:
        """End its requests with ERROR and forget it; the others go on."""

    def add(self, request: EngineRequest) -> list[TokenStep]:
        """Queue a checked request. One that is complete already finishes at once."""

    def cancel(self, request_id: str) -> list[TokenStep]:
        """Drop a request and free what it holds; nothing if it is not here (any more)."""

    def fail(self, why: str) -> list[TokenStep]:
        """End every request with ERROR and free what they hold."""

    def step(self) -> list[TokenStep]:
        """Run one forward pass; what it gave each request that reached its last token."""

    def check_input(self, tokens: Sequence[int]) -> None:
        """Raise RequestRefused if `tokens` cannot be embedded here. Any thread."""

    def embed(self, name: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """One vector an input, [len(inputs), width] float32 on the CPU: the last layer's, pooled. No KV is kept.
        `name` is the replica's own or that of an adapter here."""

    def unload(self) -> None:
        """Give back weights and KV memory. The replica is of no use afterwards."""


@runtime_checkable
class Proving(Protocol):
    """A replica that can keep a numerics level above fast."""

    def prove(self) -> None:
        """Once, before its first request, on the engine's thread: compute what shows that its level holds on this
        device, and take its fingerprint. NumericsNotHeld if it does not. Nothing happens at level fast."""
