"""Loading a replica: bytes and skeleton side by side, then each tensor of the skeleton points at its bytes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.views import tensor_views
from mesh.clients.store import StoreClient
from mesh.errors import NoRoom, Unsuitable
from mesh.facts import NumericsLevel, RunnerKind, Tier
from mesh.requests import LoadProgress
from services.worker.engine.batch import Limits
from services.worker.engine.encoder import EncoderReplica
from services.worker.engine.errors import EngineError
from services.worker.engine.host_tier import HostTier
from services.worker.engine.model import assign, is_packed, release
from services.worker.engine.numerics import LEVELS
from services.worker.engine.opaque_proof import Proof, prove
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.packing import PackBudget
from services.worker.engine.pool import KVSpec, LayerKV
from services.worker.engine.replica import Replica
from services.worker.loading.device import Device, Weights
from services.worker.loading.quiet import Quiet
from services.worker.loading.skeletons import Skeletons
from services.worker.loading.threads import ended
from services.worker.naming import replica_name

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Order:
    """Which checkpoint to make which model's replica of, and the store to take it from. An adapter has a `base`, and
    `base_model` is the model whose replica that is made as, if it has to be."""

    model: str
    digest: str
    store_address: str
    base: str = ""
    base_model: str = ""
    numerics: NumericsLevel | None = None  # the worker's default, as far as what runs it keeps any

    @property
    def replica(self) -> str:
        """The engine's name of what comes of it."""
        return replica_name(self.model, self.digest)


@dataclass(frozen=True, slots=True)
class LoadedReplica:
    """A replica that can be given to the engine; `tier` is where its weights came from."""

    replica: Replica
    tier: Tier


class Observer(Protocol):
    """Who wants to know how a load goes."""

    def manifest(self, manifest: Manifest) -> None:
        """The size is known. May raise to refuse the load."""

    def progress(self, progress: LoadProgress) -> None:
        """Bytes have come."""


class Loader:
    """Makes replicas. Their bytes stay where they are for as long as the context is open."""

    def __init__(
        self,
        stores: StoreClient,
        device: Device,
        skeletons: Skeletons,
        kv_bytes: int,
        limits: Limits,
        *,
        tier: HostTier | None = None,
        packing: PackBudget | None = None,
        most_kv_bytes: int = 0,
        numerics: NumericsLevel = NumericsLevel.FAST,
    ) -> None:
        self._stores, self._device, self._skeletons, self._numerics = stores, device, skeletons, numerics
        self._kv_bytes, self._limits, self._tier, self._packing = kv_bytes, limits, tier, packing
        self.quiet = Quiet()
        self._most_kv_bytes = most_kv_bytes
        self._proofs: dict[tuple[str, str], Proof] = {}  # by digest of config.json, and dtype

    @asynccontextmanager
    async def load(self, order: Order, observer: Observer) -> AsyncIterator[LoadedReplica]:
        """A replica, ready for the engine. MeshErrors say what went wrong; cancelling frees everything.

        The skeleton is built, and pointed at its bytes, while these are still on their way.
        """
        with ExitStack() as under_way:
            under_way.enter_context(self.quiet.broken())
            stat = await self._stores.stat(order.store_address, order.digest)
            observer.manifest(stat.manifest)
            building = asyncio.create_task(self._skeleton(order, stat.manifest), name=f"skeleton {order.model}")
            under_way.callback(building.cancel)
            async with self._device.load(order.store_address, stat, observer.progress) as weights:
                skeleton = await building
                loaded = await self._runnable(order, stat.manifest, skeleton, weights)
                under_way.close()
                yield loaded
                self._skeletons.give_back(stat.manifest, skeleton)

    async def _skeleton(self, order: Order, manifest: Manifest) -> PreTrainedModel:
        if kept := self._skeletons.take(manifest):
            return kept
        config = await self._stores.read_file(order.store_address, order.digest, CONFIG)
        return await asyncio.to_thread(self._skeletons.obtain, manifest, config)

    async def _runnable(
        self, order: Order, manifest: Manifest, skeleton: PreTrainedModel, weights: Weights
    ) -> LoadedReplica:
        """Whatever goes wrong, nothing looks at the parts any more afterwards, and the skeleton is kept."""
        loop = asyncio.get_running_loop()
        join = partial(self._join, order, manifest, skeleton, weights.parts)
        made: list[asyncio.Future[Any]] = [loop.run_in_executor(None, join)]
        try:
            joined = await asyncio.shield(made[0])
            tier = await weights.complete()
            if joined is not None:
                return LoadedReplica(joined, tier)
            trying = loop.run_in_executor(None, partial(self._try, order, manifest, skeleton))
            made.append(trying)
            return LoadedReplica(await asyncio.shield(trying), tier)
        except BaseException:
            await ended(made)
            for replica in [one.result() for one in made if not one.exception()]:
                if replica:
                    replica.unload()
            release(skeleton)
            self._skeletons.give_back(manifest, skeleton)
            raise

    def _join(
        self, order: Order, manifest: Manifest, skeleton: PreTrainedModel, parts: Sequence[Tensor]
    ) -> Replica | None:
        """On a thread: points the skeleton at its bytes and gives it a KV pool. None: it has to be tried first."""
        try:
            assign(skeleton, tensor_views(manifest, parts))
            if manifest.runner is RunnerKind.ENCODER:
                return EncoderReplica(order.replica, skeleton, manifest.max_context)
            if not is_packed(skeleton):
                return None
            spec = _kv_spec(manifest)
            return PackedReplica(
                order.replica,
                order.digest,
                skeleton,
                self._kv_bytes,
                spec=spec,
                limits=self._limits,
                tier=self._tier,
                packing=self._packing,
                most_kv_bytes=self._most_kv_bytes,
                numerics=LEVELS[order.numerics or self._numerics],
            )
        except EngineError as error:
            raise Unsuitable(f"{order.model!r} cannot run here: {error}", reason="UNSUPPORTED_ARCHITECTURE") from error
        except torch.OutOfMemoryError as error:
            raise NoRoom(f"the device gave no memory for KV: {error}", reason="NO_DEVICE_MEMORY") from error

    def _try(self, order: Order, manifest: Manifest, skeleton: PreTrainedModel) -> Replica:
        """On a thread: runs a few tokens, unless this architecture has been tried before, and makes its replica."""
        key = manifest.config_digest, manifest.dtype
        try:
            proof = self._proofs.get(key) or prove(skeleton)
            self._proofs[key] = proof
            level = LEVELS[order.numerics or self._numerics]
            return OpaqueReplica(order.replica, skeleton, self._kv_bytes, proof, limits=self._limits, numerics=level)
        except EngineError as error:
            raise Unsuitable(f"{order.model!r} cannot run here: {error}", reason="UNSUPPORTED_ARCHITECTURE") from error


def _kv_spec(manifest: Manifest) -> KVSpec | None:
    """The geometry that the import probed; None lets the replica probe, which also says why it cannot be run."""
    if manifest.kv is None or any(layer.heads != layer.v_heads for layer in manifest.kv.layers):
        return None
    layers = tuple(LayerKV(layer.heads, layer.k_dim, layer.v_dim) for layer in manifest.kv.layers)
    return KVSpec(layers, getattr(torch, manifest.kv.dtype))
