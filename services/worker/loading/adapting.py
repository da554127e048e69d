"""Loading an adapter: its bytes come as a checkpoint's do, and are copied into the form in which they are applied."""

import asyncio
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedModel

from mesh.checkpoint.adapter import ADAPTER_CONFIG
from mesh.checkpoint.errors import CheckpointError
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.lora import recipe
from mesh.checkpoint.views import tensor_views
from mesh.clients.store import Stat, StoreClient
from mesh.errors import Unsuitable
from mesh.facts import Tier
from services.worker.engine.adapter import Adapter
from services.worker.engine.errors import EngineError
from services.worker.engine.peft import make_adapter
from services.worker.loading.device import Device, Weights
from services.worker.loading.loader import Observer, Order
from services.worker.loading.threads import ended


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter that can be given to the engine; `tier` is where its bytes came from."""

    adapter: Adapter
    tier: Tier


class AdapterLoader:
    """Makes adapters. Nothing of the store is held once one is made."""

    def __init__(self, stores: StoreClient, device: Device) -> None:
        self._stores, self._device = stores, device

    async def load(self, order: Order, base: PreTrainedModel, observer: Observer) -> LoadedAdapter:
        """An adapter for `base`, whose weights are assigned. MeshErrors say what went wrong; cancelling frees all."""
        stat = await self._stores.stat(order.store_address, order.digest)
        if stat.manifest.base != order.base:
            raise Unsuitable(f"{order.digest} is no adapter of {order.base}", reason="UNSUPPORTED_ADAPTER")
        observer.manifest(stat.manifest)
        config = await self._stores.read_file(order.store_address, order.digest, ADAPTER_CONFIG)
        async with self._device.load(order.store_address, stat, observer.progress) as weights:
            tier = await weights.complete()
            return LoadedAdapter(await self._made(order, stat, base, config, weights), tier)

    async def _made(self, order: Order, stat: Stat, base: PreTrainedModel, config: bytes, weights: Weights) -> Adapter:
        """Whatever goes wrong, nothing looks at the parts any more afterwards."""
        make = partial(_make, order, stat.manifest, base, config, weights)
        making = asyncio.get_running_loop().run_in_executor(None, make)
        try:
            return await asyncio.shield(making)
        finally:
            await ended([making])


def _make(order: Order, manifest: Manifest, base: PreTrainedModel, config: bytes, weights: Weights) -> Adapter:
    try:
        tensors = tensor_views(manifest, weights.parts)
        return make_adapter(order.replica, order.digest, base, tensors, recipe(config))
    except (EngineError, CheckpointError) as error:
        raise Unsuitable(f"the adapter {order.model!r} cannot run: {error}", reason="UNSUPPORTED_ADAPTER") from error
