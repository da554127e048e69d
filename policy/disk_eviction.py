"""Which units of a checkpoint leave the disk. Pure."""

from collections.abc import Collection, Sequence


def tail(units: Collection[int], extents: Sequence[int], wanted_bytes: int) -> tuple[int, ...]:
    """The last ones in forward order whose bytes reach `wanted_bytes`, or all: a load begins with the head."""
    chosen: list[int] = []
    for unit in sorted(units, reverse=True):
        if wanted_bytes <= 0:
            break
        chosen.append(unit)
        wanted_bytes -= extents[unit]
    return tuple(chosen)
