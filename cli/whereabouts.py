"""Where a checkpoint's bytes lie, in few words. Pure."""

from collections.abc import Iterable

from mesh.facts import NEARNESS, CheckpointFacts, Tier


def whereabouts(held: CheckpointFacts) -> str:
    """Of one store: the nearest tier that has all of it, and what part of it is nearer: "disk, dram 62 %"."""
    parts = [str(held.tier)] if held.tier is not Tier.ORIGIN else []
    amounts = {Tier.DISK: held.disk_bytes, Tier.DRAM: held.dram_bytes}
    for tier, amount in amounts.items():
        if 0 < amount < held.bytes and NEARNESS[tier] > NEARNESS[held.tier]:
            parts.append(f"{tier} {_percent(amount, held.bytes)} %")
    return ", ".join(parts) or str(Tier.ORIGIN)


def nearest(holdings: Iterable[CheckpointFacts]) -> CheckpointFacts | None:
    """Of several stores' holdings of one checkpoint the nearest, and of equals the one with most in memory."""
    return max(holdings, key=lambda held: (NEARNESS[held.tier], held.dram_bytes, held.disk_bytes), default=None)


def _percent(part: int, whole: int) -> int:
    """Never 0 or 100 for what is neither."""
    return min(99, max(1, round(100 * part / whole)))
