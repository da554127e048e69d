"""The device of a worker, by its name in the settings."""

from collections.abc import Mapping
from types import MappingProxyType

from mesh.clients.store import StoreClient
from services.worker.loading.copying import CopyDevice
from services.worker.loading.cuda import open_cuda
from services.worker.loading.device import Device
from services.worker.loading.host import Host
from services.worker.settings import DeviceName, Transport

TORCH: Mapping[DeviceName, str] = MappingProxyType({DeviceName.HOST: "cpu", DeviceName.CUDA: "cuda"})
"""What torch calls each."""


def open_device(name: DeviceName, stores: StoreClient, transport: Transport) -> Device:
    """Raises Unsuitable where this machine has none of that name."""
    if name is DeviceName.CUDA:
        return CopyDevice(stores, transport, open_cuda())
    return Host(stores, transport)
