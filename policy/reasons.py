"""Why something is done: what is logged, counted and told."""

from enum import StrEnum


class RefusalReason(StrEnum):
    """Why a request is turned away; the names are ErrorInfo reasons."""

    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    TOO_LARGE = "NO_WORKER_LARGE_ENOUGH"
    QUEUE_FULL = "QUEUE_FULL"
    TENANT_FULL = "TENANT_FULL"
    HELD_TOO_LONG = "HELD_TOO_LONG"
    NO_CHECKPOINT = "CHECKPOINT_UNREACHABLE"
    TOO_LATE = "DEADLINE_CANNOT_BE_MET"
    VERSION_GONE = "VERSION_GONE"


class LoadReason(StrEnum):
    """Why a replica comes."""

    DEMAND = "demand"  # a request waits, and nothing can take it
    UPDATE = "update"  # it is to take over from a former version
    SCALE_OUT = "scale_out"  # those that are there have more than they should
    PREWARM = "prewarm"  # a request is expected
    MINIMUM = "minimum"  # the model is to have so many
    MOVE = "move"  # what runs elsewhere is to go on there


class UnloadReason(StrEnum):
    """Why a replica goes."""

    IDLE = "idle"
    EVICTED = "evicted"
    SUPERSEDED = "superseded"  # deleted from the catalogue, or another checkpoint takes its place
    SCALED_IN = "scaled_in"  # the others can do its work
    DRAINED = "drained"  # its worker is to become empty


class MoveReason(StrEnum):
    """Why a running request goes on elsewhere."""

    LOCALITY = "locality"  # a version starts sooner where it runs
    DRAIN = "drain"  # its worker is to become empty
    BALANCE = "balance"  # its replica has much more to do than another
    DEFRAGMENT = "defragment"  # few run on a replica whose memory others wait for
    ASKED = "asked"  # an admin wants it
