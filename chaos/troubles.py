"""What befalls the cluster, drawn from a seed: what, when and how long. To which process, is decided later. Pure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mesh.facts import Kind


class Deed(StrEnum):
    """What is done."""

    KILL = "kill"  # SIGKILL, and started again
    STALL = "stall"  # SIGSTOP, and SIGCONT after a while
    REDIS_KILL = "redis killed"
    REDIS_STALL = "redis stalled"
    MOVE = "move"  # a running request is asked to go elsewhere
    DRAIN = "drain"  # and undrained after a while


@dataclass(frozen=True, slots=True)
class Trouble:
    """One of them. `chance`, in [0, 1), picks among whatever it can befall by then."""

    number: int
    deed: Deed
    kind: Kind  # of the process, where it befalls one
    after_tokens: int  # that clients have got since the one before
    for_s: float  # how long it lasts
    chance: float


DEEDS = {Deed.KILL: 9, Deed.STALL: 5, Deed.REDIS_KILL: 1, Deed.REDIS_STALL: 1, Deed.MOVE: 16, Deed.DRAIN: 2}
KINDS = {Kind.WORKER: 6, Kind.GATEWAY: 3, Kind.SCHEDULER: 2, Kind.STORE: 1}
BETWEEN_TOKENS = (20, 500)
BRIEF_S, LENGTHY_S = (0.05, 1.0), (3.5, 7.0)  # below a lease, and above it
LENGTHY = 0.35  # how many of them are


def troubles(seed: int) -> Iterator[Trouble]:
    """Without end, always the same ones of a seed."""
    chance = random.Random(f"troubles {seed}")
    number = 0
    while True:
        number += 1
        (deed,) = chance.choices(list(DEEDS), list(DEEDS.values()))
        (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
        span = LENGTHY_S if chance.random() < LENGTHY else BRIEF_S
        yield Trouble(number, deed, kind, chance.randint(*BETWEEN_TOKENS), chance.uniform(*span), chance.random())
