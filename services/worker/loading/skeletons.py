"""Models without weights: built once per configuration on the meta device, kept for the next load."""

import gc
import importlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import structlog
import torch
from transformers import AutoConfig, PreTrainedModel

from mesh.checkpoint.layout import Manifest
from mesh.errors import Unsuitable
from mesh.facts import RunnerKind
from services.worker.engine.bodies import build_causal
from services.worker.engine.encoder import build_encoder
from services.worker.engine.errors import UnsupportedArchitecture

log = structlog.get_logger()
Key = tuple[str, str]  # digest of config.json, dtype


def preimport(model_types: Iterable[str]) -> None:
    """Imports transformers' code for these types: seconds that a cold start would otherwise pay. Before serving."""
    for model_type in model_types:
        try:
            importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
        except ModuleNotFoundError:
            log.warning("no such model type to import ahead", model_type=model_type)
    gc.collect()
    gc.freeze()  # what is imported stays: looking through it again and again would stop every thread, the engine's too


class Skeletons:
    """Lends each skeleton to one replica at a time; the least recently used is dropped. Versions of a model, and its
    fine-tunes, share theirs: nothing but config.json and the dtype goes into one. Any thread.

    `device` is torch's name of where they will run: rotary tables and the like are made there."""

    def __init__(self, capacity: int, scratch_dir: Path, device: str = "cpu") -> None:
        self._capacity, self._scratch_dir, self._device = capacity, scratch_dir, device
        self._idle: OrderedDict[Key, PreTrainedModel] = OrderedDict()
        self._building: dict[Key, threading.Lock] = {}

    @property
    def room(self) -> bool:
        """Whether another one can lie ready without driving one out."""
        return len(self._idle) < self._capacity

    def take(self, manifest: Manifest) -> PreTrainedModel | None:
        """One that lies ready, or None."""
        return self._idle.pop(_key(manifest), None)

    def give_back(self, manifest: Manifest, skeleton: PreTrainedModel) -> None:
        """Keeps a module whose weights have been released (engine.model.release)."""
        self._idle[_key(manifest)] = skeleton
        while len(self._idle) > self._capacity:
            self._idle.popitem(last=False)

    def obtain(self, manifest: Manifest, config_json: bytes) -> PreTrainedModel:
        """One that lies ready or is just being prepared, else a new one. Takes a thread's time; raises Unsuitable."""
        with self._lock(manifest):
            return self.take(manifest) or self.build(manifest, config_json)

    def prepare(self, manifest: Manifest, config_json: bytes) -> None:
        """Has one lie ready, if there is room: the first to be dropped. Takes a thread's time; raises Unsuitable."""
        key = _key(manifest)
        with self._lock(manifest):
            if key not in self._idle and self.room:
                self._idle[key] = self.build(manifest, config_json)
                self._idle.move_to_end(key, last=False)

    def build(self, manifest: Manifest, config_json: bytes) -> PreTrainedModel:
        """A module with its parameters on meta, in the checkpoint's dtype. Takes a thread's time; raises Unsuitable."""
        with tempfile.TemporaryDirectory(dir=self._scratch_dir, prefix="whimbrel-config-") as directory:
            Path(directory, "config.json").write_bytes(config_json)
            config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        dtype = getattr(torch, manifest.dtype)
        try:
            if manifest.runner is RunnerKind.ENCODER:
                names = [tensor.name for tensor in manifest.tensors]
                return build_encoder(config, manifest.architecture, names, dtype, self._device)
            return build_causal(config, dtype, self._device, probed=manifest.kv is not None)
        except UnsupportedArchitecture as error:
            raise Unsuitable(str(error), reason="UNSUPPORTED_ARCHITECTURE") from error

    def _lock(self, manifest: Manifest) -> threading.Lock:
        return self._building.setdefault(_key(manifest), threading.Lock())


def _key(manifest: Manifest) -> Key:
    return manifest.config_digest, manifest.dtype
