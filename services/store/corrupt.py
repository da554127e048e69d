"""What happens to a checkpoint one of whose units proved wrong on disk."""

import contextlib
from collections.abc import Awaitable, Callable

from mesh.errors import DataLoss, Unsuitable
from services.store.catalog import Catalog, Stored
from services.store.pins import Pins
from services.store.tiers import DramPool

OnCorrupt = Callable[[Stored, int, str], Awaitable[None]]
"""Told which unit of a checkpoint's files proved wrong, and why: takes it out of service. Who needs it fetches it."""


def quarantining(catalog: Catalog, dram: DramPool, pins: Pins) -> OnCorrupt:
    """Takes the whole checkpoint out of service, for where nobody can bring the unit again."""

    async def quarantine(stored: Stored, unit: int, why: str) -> None:
        del unit
        digest = stored.manifest.digest

        def forget() -> None:
            with contextlib.suppress(Unsuitable):  # still mapped: it leaves as any other
                dram.evict(digest)

        pins.when_free(digest, forget)
        await catalog.quarantine(digest, why)

    return quarantine


def unit_named(stored: Stored, name: str) -> int:
    """A unit's index."""
    return next(index for index, unit in enumerate(stored.manifest.units) if unit.name == name)


def unreadable(stored: Stored, error: OSError) -> DataLoss:
    """What to answer when the disk fails."""
    return DataLoss(f"{stored.directory} cannot be read: {error}", reason="UNREADABLE")
