"""Which checkpoints leave a tier to make room: least recently used first, never one that is pinned. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """A checkpoint in a tier. `used_s` is when it was last asked for; `pinned` says that somebody uses it now."""

    digest: str
    bytes: int
    used_s: float
    pinned: bool


@dataclass(frozen=True, slots=True)
class Eviction:
    """What to drop, oldest first. With `missing_bytes` above 0 it cannot be done, and nothing is to be dropped."""

    digests: tuple[str, ...]
    missing_bytes: int = 0


def make_room(held: Sequence[Held], free_bytes: int, wanted_bytes: int) -> Eviction:
    """The least recently used checkpoints whose bytes, with what is free, reach `wanted_bytes`."""
    chosen: list[Held] = []
    free = free_bytes
    for checkpoint in sorted((h for h in held if not h.pinned), key=lambda h: h.used_s):
        if free >= wanted_bytes:
            break
        chosen.append(checkpoint)
        free += checkpoint.bytes
    if free < wanted_bytes:
        return Eviction((), missing_bytes=wanted_bytes - free)
    return Eviction(_spared(chosen, free - wanted_bytes))


def _spared(chosen: list[Held], surplus_bytes: int) -> tuple[str, ...]:
    """Leaves out what later, larger choices made needless; the most recently used are spared first."""
    needed: list[str] = []
    for checkpoint in reversed(chosen):
        if checkpoint.bytes <= surplus_bytes:
            surplus_bytes -= checkpoint.bytes
        else:
            needed.append(checkpoint.digest)
    return tuple(reversed(needed))
