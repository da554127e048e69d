"""Damage found on this disk: the unit is read by nobody from then on, and counted. Its bytes are kept for whoever wants
to see what became of them."""

import asyncio
import os

import structlog
from blake3 import blake3

from services.store.catalog import QUARANTINE, Catalog, Stored

log = structlog.get_logger()
CHUNK_BYTES = 1 << 20


class Quarantine:
    """One for the store. Whoever finds a unit damaged, by loading, reading, copying or scrubbing, comes here."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.corrupt_units = 0

    async def on_corrupt(self, stored: Stored, unit: int, why: str) -> None:
        """Afterwards the unit is not in `units_on_disk`, and can be fetched; unless a second look finds it right."""
        if unit not in stored.units_on_disk or not self._catalog.is_current(stored):
            return  # somebody else has found it, or it is gone
        stored.presence.forget((unit,))
        if await asyncio.to_thread(_is_right, stored, unit):
            stored.presence.recall((unit,))
            log.error("a unit was read wrongly, and is right on disk", digest=stored.manifest.digest, unit=unit)
            return
        self.count_one()
        await asyncio.shield(asyncio.to_thread(_set_aside, stored, unit))
        log.error("unit quarantined", digest=stored.manifest.digest, unit=unit, why=why)
        self._catalog.changed()

    def count_one(self) -> None:
        """A unit was not what its hash says, here or from a source."""
        self.corrupt_units += 1
        self._catalog.changed()


def _is_right(stored: Stored, index: int) -> bool:
    """Read again, from the disk itself where the kernel lets go of what it has cached."""
    unit, hasher = stored.manifest.units[index], blake3()
    try:
        descriptor = os.open(stored.part_paths[unit.part], os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, unit.offset, unit.bytes, os.POSIX_FADV_DONTNEED)
            for start in range(0, unit.bytes, CHUNK_BYTES):
                hasher.update(os.pread(descriptor, min(CHUNK_BYTES, unit.bytes - start), unit.offset + start))
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return hasher.hexdigest() == unit.hash


def _set_aside(stored: Stored, index: int) -> None:
    unit = stored.manifest.units[index]
    grave = stored.directory.parent / QUARANTINE / f"{stored.manifest.digest}.units"
    try:
        grave.mkdir(parents=True, exist_ok=True)
        with stored.part_paths[unit.part].open("rb") as part, (grave / f"{index}.bin").open("wb") as kept:
            part.seek(unit.offset)
            for start in range(0, unit.bytes, CHUNK_BYTES):
                kept.write(part.read(min(CHUNK_BYTES, unit.bytes - start)))
    except OSError as error:  # no room, or a sector that cannot be read: the bytes are worth nothing anyway
        log.warning("the bytes of a damaged unit were not kept", unit=unit.name, error=str(error))
    stored.presence.drop((index,))
