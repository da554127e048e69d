"""Checkpoints that this node has never seen: their manifest and small files come from a peer or an origin."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import structlog
from blake3 import blake3

from mesh.checkpoint import layout
from mesh.checkpoint.errors import CheckpointError, Damaged, StorageFailed
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.staging import publish, staged, sync_directory
from mesh.checkpoint.verify import FILES, MANIFEST, MAX_MANIFEST_BYTES
from mesh.errors import MeshError, NotFound, Unreachable, Unsuitable
from mesh.facts import Member
from services.store.catalog import Catalog, Stored
from services.store.faults import ORIGIN_REFUSED, as_mesh_error
from services.store.origins import Origins
from services.store.peers import Peers
from services.store.presence import JOURNAL

log = structlog.get_logger()
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Outline:
    """A checkpoint without its units."""

    manifest: Manifest
    files: Mapping[str, bytes]


class Learner:
    """Finds checkpoints here, and beyond. Several that ask for one wait for one answer."""

    def __init__(self, catalog: Catalog, peers: Peers, origins: Origins) -> None:
        self._catalog, self._peers, self._origins = catalog, peers, origins
        self._learning: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, digest: str) -> Stored:
        """The checkpoint, in the catalogue by then. Raises InvalidRequest, NotFound, Unreachable when somebody who
        may have it does not answer, and Unsuitable when we may not read what may."""
        while True:
            try:
                return self._catalog.get(digest)
            except NotFound:
                await self._learn(digest)

    async def _learn(self, digest: str) -> None:
        lock = self._learning.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                if not self._catalog.knows(digest):
                    outline = await self._outline(digest)
                    await asyncio.to_thread(_publish, self._catalog.root, outline)
                    await self._catalog.add(outline.manifest)
                    log.info("checkpoint learnt", digest=digest, units=len(outline.manifest.units))
        except CheckpointError as error:
            raise as_mesh_error(error) from error

    async def _outline(self, digest: str) -> Outline:
        failures: list[MeshError] = []
        async with aclosing(self._outlines(digest)) as outlines:
            async for found in outlines:
                if isinstance(found, Outline):
                    return found
                failures.append(found)
        if lost := [failure for failure in failures if not isinstance(failure, NotFound)]:
            said = f"checkpoint {digest} is not in this store, and who may have it does not tell: {lost[-1].message}"
            if all(failure.reason == ORIGIN_REFUSED for failure in lost):
                raise Unsuitable(said, reason=ORIGIN_REFUSED)
            raise Unreachable(
                said,
                reason="SOURCES_UNREACHABLE",
                retry_after_s=RETRY_S,
            )
        raise NotFound(
            f"checkpoint {digest} is in no store and no origin of WHIMBREL_ORIGINS; import it first",
            reason="UNKNOWN_CHECKPOINT",
        )

    async def _outlines(self, digest: str) -> AsyncGenerator[Outline | MeshError, None]:
        """One a source, or why it gave none."""
        for peer in self._peers.knowing(digest):
            try:
                yield await self._from_peer(peer, digest)
            except MeshError as error:
                yield error
            except CheckpointError as error:
                yield as_mesh_error(error)
        async with AsyncExitStack() as stack:
            looked = await self._origins.knowing(digest, stack)
            for failure in looked.failures:
                yield failure
            for origin in looked.origins:
                try:
                    yield await asyncio.to_thread(_from_origin, origin, digest)
                except CheckpointError as error:
                    yield as_mesh_error(error)

    async def _from_peer(self, peer: Member, digest: str) -> Outline:
        client, files = self._peers.client, dict[str, bytes]()
        manifest = (await client.stat(peer.address, digest)).manifest
        _check(manifest, digest, f"store {peer.id}")
        for file in manifest.files:
            files[file.path] = await client.read_file(peer.address, digest, file.path)
        _check_files(manifest, files, f"store {peer.id}")
        return Outline(manifest, files)


def _from_origin(origin: Origin, digest: str) -> Outline:
    size = origin.size(MANIFEST) or 0
    if size > MAX_MANIFEST_BYTES:
        raise Damaged(f"{origin.url}/{MANIFEST} has {size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    manifest = layout.parse(_whole(origin, MANIFEST, size))
    layout.validate(manifest)
    _check(manifest, digest, origin.url)
    files: dict[str, bytes] = {}
    for file in manifest.files:
        if origin.size(f"{FILES}/{file.path}") != file.bytes:
            raise Damaged(f"{origin.url}/{FILES}/{file.path} is missing, or has not its {file.bytes} bytes")
        files[file.path] = _whole(origin, f"{FILES}/{file.path}", file.bytes)
    _check_files(manifest, files, origin.url)
    return Outline(manifest, files)


def _whole(origin: Origin, name: str, size: int) -> bytes:
    data = bytearray(size)
    origin.read_into(name, 0, memoryview(data))
    return bytes(data)


def _check(manifest: Manifest, digest: str, source: str) -> None:
    """The digest covers the rest: a manifest that was validated and has it is the one that was asked for."""
    if manifest.digest != digest:
        raise Damaged(f"{source} answered with checkpoint {manifest.digest} when asked for {digest}")


def _check_files(manifest: Manifest, files: Mapping[str, bytes], source: str) -> None:
    for file in manifest.files:
        if blake3(files[file.path]).hexdigest() != file.hash:
            raise Damaged(f"{source} sent a file {file.path} that does not have its hash")


def _publish(root: Path, outline: Outline) -> None:
    """Raises StorageFailed."""
    try:
        publish_outline(root, outline)
    except OSError as error:
        raise StorageFailed(f"{root} cannot take checkpoint {outline.manifest.digest}: {error}") from error


def publish_outline(root: Path, outline: Outline) -> None:
    """A directory with holes for parts and an empty journal: no unit is there."""
    manifest = outline.manifest
    with staged(root) as stage:
        for path, data in outline.files.items():
            _write(stage / FILES / path, data)
        for part in manifest.parts:
            _write(stage / part.file, b"", part.bytes)
        _write(stage / JOURNAL, b"")
        _write(stage / MANIFEST, layout.dump(manifest))
        for directory, _, _ in os.walk(stage):
            sync_directory(Path(directory))
        publish(stage, manifest.digest)


def _write(path: Path, data: bytes, size: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) if size is None else size)
        file.flush()
        os.fsync(file.fileno())
