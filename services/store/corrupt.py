"""What happens to a checkpoint one of whose units proved wrong on disk."""

from collections.abc import Awaitable, Callable

from mesh.errors import DataLoss
from services.store.catalog import Stored

OnCorrupt = Callable[[Stored, int, str], Awaitable[None]]
"""Told which unit of a checkpoint's files proved wrong, and why: takes it out of service. Who needs it fetches it."""


def unit_named(stored: Stored, name: str) -> int:
    """A unit's index."""
    return next(index for index, unit in enumerate(stored.manifest.units) if unit.name == name)


def unreadable(stored: Stored, error: OSError) -> DataLoss:
    """What to answer when the disk fails."""
    return DataLoss(f"{stored.directory} cannot be read: {error}", reason="UNREADABLE")
