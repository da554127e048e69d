"""The devices that share one test-suite. Where a copy is asynchronous on a card, here it happens when waited for."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from mesh.clients.store import StoreClient
from mesh.mapping import Mapping, address_of
from services.worker.loading.copying import CopyDevice
from services.worker.loading.cuda import open_cuda
from services.worker.loading.device import Device
from services.worker.loading.host import Host, HostCopier
from services.worker.settings import Transport


class LateCopier(HostCopier):
    """Copies as a card does: not before somebody waits for it, and only from page-locked memory."""

    needs_pinned = True

    def __init__(self, *, can_pin: bool) -> None:
        self._can_pin = can_pin
        self._pending: list[Callable[[], None]] = []
        self._locked: list[tuple[int, int]] = []  # staging: address, bytes
        self.pinned: dict[int, int] = {}  # shared memory: address, bytes
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def allocate(self, size: int) -> Tensor:
        tensor = super().allocate(size)
        self.alive.add(tensor)
        return tensor

    def page_locked(self, size: int) -> memoryview:
        view = super().page_locked(size)
        self._locked.append((address_of(view), size))
        return view

    def pin(self, mapping: Mapping, start: int, size: int) -> None:
        if not self._can_pin:
            raise PermissionError("this card page-locks no memory of others")
        assert mapping.address + start not in self.pinned
        self.pinned[mapping.address + start] = size

    def unpin(self, mapping: Mapping, start: int) -> None:
        del self.pinned[mapping.address + start]

    def copy(self, target: Tensor, offset: int, source: memoryview) -> None:
        at, end = address_of(source), address_of(source) + source.nbytes
        ranges = [*self._locked, *self.pinned.items()]
        assert any(start <= at and end <= start + size for start, size in ranges), "copied from pageable memory"
        self._pending.append(partial(super().copy, target, offset, source))

    def mark(self) -> Callable[[], None]:
        mine = list(self._pending)

        def wait() -> None:
            for copy in mine:
                if copy in self._pending:
                    self._pending.remove(copy)
                    copy()

        return wait


@dataclass(frozen=True, slots=True)
class Twin:
    """A device to test, and its copier if it has one that watches."""

    device: Device
    copier: LateCopier | None = None
    zero_copy: bool = False


def host(stores: StoreClient, transport: Transport) -> Twin:
    return Twin(Host(stores, transport), zero_copy=True)


def copied(stores: StoreClient, transport: Transport) -> Twin:
    return Twin(CopyDevice(stores, transport, HostCopier()))


def pinned(stores: StoreClient, transport: Transport) -> Twin:
    copier = LateCopier(can_pin=True)
    return Twin(CopyDevice(stores, transport, copier), copier)


def staged(stores: StoreClient, transport: Transport) -> Twin:
    copier = LateCopier(can_pin=False)
    return Twin(CopyDevice(stores, transport, copier), copier)


def cuda(stores: StoreClient, transport: Transport) -> Twin:
    return Twin(CopyDevice(stores, transport, open_cuda()))


NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
TWINS = [host, copied, pinned, staged, pytest.param(cuda, marks=[pytest.mark.gpu, NO_CARD])]
