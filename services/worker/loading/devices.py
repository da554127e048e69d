"""The device of a worker, by its name in the settings."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from mesh.clients.store import StoreClient
from mesh.errors import Unsuitable
from services.worker.loading.copying import CopyDevice
from services.worker.loading.cuda import open_cuda
from services.worker.loading.device import Device
from services.worker.loading.host import Host
from services.worker.settings import DeviceName, Transport, WorkerSettings

TORCH: Mapping[DeviceName, str] = MappingProxyType({DeviceName.HOST: "cpu", DeviceName.CUDA: "cuda"})
"""What torch calls each."""
CARD_PERCENT = 85  # of what is free when a worker starts; the rest is for the results of layers, and code


def open_device(name: DeviceName, stores: StoreClient, transport: Transport) -> Device:
    """Raises Unsuitable where this machine has none of that name."""
    if name is DeviceName.CUDA:
        return CopyDevice(stores, transport, open_cuda())
    return Host(stores, transport)


def memory_bytes(settings: WorkerSettings) -> int:
    """For weights and KV. Raises Unsuitable where the card has not so much to give."""
    if settings.device is DeviceName.HOST:
        return settings.memory_bytes
    free, total = torch.cuda.mem_get_info()
    if "memory_bytes" not in settings.model_fields_set:
        return free * CARD_PERCENT // 100
    if settings.memory_bytes > free:
        raise Unsuitable(
            f"WHIMBREL_MEMORY_BYTES is {settings.memory_bytes}, but {free} of the card's {total} are free; say at most "
            "those, or end what else runs on it",
            reason="NO_DEVICE_MEMORY",
        )
    return settings.memory_bytes
