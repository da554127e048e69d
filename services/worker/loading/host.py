"""The host device: a part is the store's own memory, mapped; where it cannot be, memory of our own, filled."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import torch
from torch import Tensor

from mesh.clients.store import Stat, StoreClient
from mesh.facts import Tier
from mesh.mapping import Mapping, fresh, move
from services.worker.loading.copying import CopyDevice
from services.worker.loading.device import Tell, Weights, arriving
from services.worker.loading.supply import Mapped, Supply
from services.worker.settings import Transport


class HostCopier:
    """Memory of this process, in huge pages where there are any."""

    name = "host"
    needs_pinned = False

    def allocate(self, size: int) -> Tensor:
        """See Copier."""
        return tensor_of(fresh(size))

    def page_locked(self, size: int) -> memoryview:
        """See Copier."""
        return fresh(size).view

    def pin(self, mapping: Mapping, start: int, size: int) -> None:
        """There is no need."""

    def unpin(self, mapping: Mapping, start: int) -> None:
        """There is no need."""

    def copy(self, target: Tensor, offset: int, source: memoryview) -> None:
        """See Copier."""
        move(source, target.data_ptr() + offset)

    def mark(self) -> Callable[[], None]:
        """Every copy is done when `copy` returns."""
        return _done


class Host:
    """Zero-copy where the store shares its memory; else the same bytes, copied."""

    name = "host"

    def __init__(self, stores: StoreClient, transport: Transport) -> None:
        self._supply = Supply(stores, transport, writable=True)
        self._copies = CopyDevice(stores, transport, HostCopier())

    @asynccontextmanager
    async def load(self, address: str, stat: Stat, tell: Tell) -> AsyncIterator[Weights]:
        """See Device. Of the store the mapped memory is held for as long as the context is open."""
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(self._supply.open(address, stat))
            if isinstance(source, Mapped):
                parts, work = [tensor_of(mapping) for mapping in source.mappings], _filled(source, tell)
            else:
                parts = await self._copies.allocate(stat.manifest)
                work = self._copies.fill(source, stat.manifest, parts, tell)
            yield await stack.enter_async_context(arriving(parts, work))


def tensor_of(mapping: Mapping) -> Tensor:
    """uint8 [bytes] over the same memory, which it keeps."""
    if not mapping.bytes:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(mapping.view, dtype=torch.uint8)


async def _filled(source: Mapped, tell: Tell) -> Tier:
    """The store fills the very memory that is mapped: there is nothing to do but wait."""
    async with source.pieces(tell) as pieces:
        async for _ in pieces:
            pass
    return source.tier


def _done() -> None:
    pass
