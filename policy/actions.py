"""What the policy can ask for. The scheduler carries it out; a simulator does so on paper."""

from dataclasses import dataclass, field

from mesh.facts import Tier
from mesh.requests import MoveKind
from policy.haul import Haul
from policy.moving import Evacuation
from policy.reasons import LoadReason, MoveReason, RefusalReason, UnloadReason
from policy.spot import Spot

__all__ = [
    "Action",
    "Load",
    "LoadReason",
    "MakeWay",
    "Move",
    "MoveReason",
    "Place",
    "Prefetch",
    "RefusalReason",
    "Refuse",
    "Unload",
    "UnloadReason",
    "Yield",
]


@dataclass(frozen=True, slots=True)
class Place:
    """The request runs on this replica."""

    request_id: str
    spot: Spot


@dataclass(frozen=True, slots=True)
class Load:
    """Make a replica, from a store. An adapter is put on a replica of its base; `base_model` names the one to make
    where there is none."""

    spot: Spot
    store_id: str
    base: str = ""
    base_model: str = ""
    reason: LoadReason = LoadReason.DEMAND
    tenant: str = ""  # whose request demands it
    haul: Haul | None = field(default=None, compare=False)  # what it was thought to have to bring


@dataclass(frozen=True, slots=True)
class Unload:
    """End a replica."""

    spot: Spot
    reason: UnloadReason


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn the request away. `retry_after_s` is None when trying again cannot help."""

    request_id: str
    reason: RefusalReason
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Bring a checkpoint up to a tier of a store, behind the loads that requests wait for."""

    store_id: str
    digest: str
    tier: Tier
    instead: tuple[str, ...] = ()  # checkpoints that leave the tier for it, before


@dataclass(frozen=True, slots=True)
class Move:
    """Let a running request go on elsewhere, where a replica is ready: it runs on while its KV comes about there, in
    the way that is thought to be quicker."""

    request_id: str
    to: Spot
    kind: MoveKind = MoveKind.TOKENS
    reason: MoveReason = MoveReason.LOCALITY


@dataclass(frozen=True, slots=True)
class MakeWay:
    """Remember that a worker makes way for a model; the steps are actions of their own."""

    evacuation: Evacuation


@dataclass(frozen=True, slots=True)
class Yield:
    """Replicas take nothing new: when what runs there has ended, they are evicted for the replica `to`."""

    spots: tuple[Spot, ...]
    to: Spot


Action = Place | Load | Unload | Refuse | Prefetch | Move | MakeWay | Yield
