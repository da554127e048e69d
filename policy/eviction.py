"""What leaves a tier to make room: bytes of the least recently used checkpoints, never of a pinned one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """What a tier holds of a checkpoint. `used_s` is when it was last asked for; `pinned`: somebody uses it now."""

    digest: str
    bytes: int
    used_s: float
    pinned: bool


@dataclass(frozen=True, slots=True)
class Shed:
    """How many bytes a checkpoint is to give up, its last ones first: a load begins with the head, which stays."""

    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Eviction:
    """What to drop, oldest first. With `missing_bytes` above 0 it cannot be done, and nothing is to be dropped."""

    shed: tuple[Shed, ...]
    missing_bytes: int = 0


def make_room(held: Sequence[Held], free_bytes: int, wanted_bytes: int) -> Eviction:
    """Sheds, oldest first, what `wanted_bytes` exceeds `free_bytes` by: whole checkpoints, and the tail of the last."""
    lacking = max(0, wanted_bytes - free_bytes)
    shed: list[Shed] = []
    for checkpoint in sorted((h for h in held if not h.pinned and h.bytes), key=lambda h: h.used_s):
        if not lacking:
            break
        shed.append(Shed(checkpoint.digest, min(checkpoint.bytes, lacking)))
        lacking -= shed[-1].bytes
    return Eviction((), missing_bytes=lacking) if lacking else Eviction(tuple(shed))
