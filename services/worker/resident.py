"""One replica of a worker, as its owner knows it."""

import asyncio
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from mesh.errors import MeshError, Unsuitable
from mesh.facts import ReplicaState, Tier
from mesh.requests import LoadProgress
from services.worker.engine.replica import Replica
from services.worker.loading.loader import Order


@dataclass(slots=True)
class Resident:
    """One replica and its task. An adapter has one, too: it is on the replica of its base, `beside`."""

    order: Order
    beside: Order | None = None
    runs: Replica | None = None  # what the engine runs; of an adapter, that is its base's
    adapters: set[str] = field(default_factory=set)  # that are on it, or about to be
    state: ReplicaState = ReplicaState.LOADING
    bytes: int = 0
    pool_bytes: int = 0  # of them, KV
    tier: Tier = Tier.DISK
    progress: LoadProgress | None = None
    failure: MeshError | None = None
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at each change
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out: unloading, or a load that has just been cancelled."""
        cancelled = self.task is not None and self.task.cancelling() > 0
        return cancelled or self.ending.is_set() or self.state is ReplicaState.DRAINING

    def tell(self) -> None:
        """Wakes everyone who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


def base_module(base: Resident, order: Order) -> PreTrainedModel:
    """What an adapter is made for: its base, ready. Unsuitable if it wants a numerics level that this does not have."""
    if base.runs is None:
        raise AssertionError(f"{base.order.replica} is ready and does not run")
    level = base.runs.stats().numerics
    if order.numerics not in (None, level):
        raise Unsuitable(
            f"{order.model!r} wants numerics {order.numerics}, and its base runs at {level} here; deploy both alike",
            reason="NUMERICS_NOT_HELD",
        )
    return base.runs.module
