"""What the policy can ask for. The scheduler carries it out; a simulator does so on paper."""

from dataclasses import dataclass
from enum import StrEnum

from policy.view import Spot


class RefusalReason(StrEnum):
    """Why a request is turned away; the names are ErrorInfo reasons."""

    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    TOO_LARGE = "NO_WORKER_LARGE_ENOUGH"
    QUEUE_FULL = "QUEUE_FULL"
    HELD_TOO_LONG = "HELD_TOO_LONG"
    NO_CHECKPOINT = "CHECKPOINT_UNREACHABLE"


class UnloadReason(StrEnum):
    """Why a replica goes."""

    IDLE = "idle"
    EVICTED = "evicted"
    SUPERSEDED = "superseded"  # deleted from the catalogue, or another checkpoint takes its place


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


Action = Place | Load | Unload | Refuse
