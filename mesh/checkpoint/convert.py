"""Hugging Face directory in, checkpoint out. Conversion happens here, once; loading never converts anything."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import transformers
from blake3 import blake3

from mesh.checkpoint import codec
from mesh.checkpoint.architecture import max_context, understand
from mesh.checkpoint.errors import StorageFailed
from mesh.checkpoint.part import write_part
from mesh.checkpoint.placing import place
from mesh.checkpoint.plan import Placement, lay_out
from mesh.checkpoint.probe import trace
from mesh.checkpoint.progress import ImportPhase, ImportProgress, OnProgress
from mesh.checkpoint.records import File, Manifest, Part
from mesh.checkpoint.source import CONFIG, Source, inspect
from mesh.checkpoint.staging import publish, staged, sync_directory
from mesh.checkpoint.validate import validate
from mesh.checkpoint.verify import FILES, MANIFEST, load_manifest
from mesh.checkpoint.weights import load

PART = "part-000.bin"


def import_directory(source: Path, root: Path, *, on_progress: OnProgress) -> Manifest:
    """Converts `source` into `root`/<digest>/; an equal checkpoint that is there already stays as it is.

    Deterministic: the same tensors, config and tokenizer give the same digest, however they were sharded. Raises a
    CheckpointError; whatever happens, `root` has either the whole checkpoint or nothing new.
    """
    found = inspect(source)
    on_progress(ImportProgress(ImportPhase.READING, 0, found.bytes))
    architecture = understand(found)
    weights = load(found, architecture)
    seen = trace(architecture, weights.activation_dtype)
    placements = tuple(place(architecture, weights, seen))
    plan = lay_out(placements)
    on_progress(ImportProgress(ImportPhase.READING, found.bytes, found.bytes))
    try:
        _check_space(root, plan.bytes)
        with staged(root) as stage:
            units = write_part(stage / PART, plan, weights.tensors, _percents(plan.bytes, on_progress))
            on_progress(ImportProgress(ImportPhase.PUBLISHING, plan.bytes, plan.bytes))
            files = _copy_files(found, stage / FILES)
            manifest = _sealed(
                Manifest(
                    digest="",
                    source=str(source),
                    architecture=architecture.name,
                    model_type=architecture.config.model_type,
                    transformers=transformers.__version__,
                    config_digest=next(file.hash for file in files if file.path == CONFIG),
                    dtype=_main_dtype(placements),
                    max_context=max_context(architecture.config),
                    parts=(Part(PART, rank=0, bytes=plan.bytes),),
                    units=units,
                    tensors=plan.tensors,
                    ties=weights.ties,
                    files=files,
                    kv=seen.kv,
                )
            )
            _write(stage / MANIFEST, codec.dump(manifest))
            return load_manifest(publish(stage, manifest.digest))
    except OSError as error:
        raise StorageFailed(f"{root} cannot hold the checkpoint: {error}") from error


def _sealed(manifest: Manifest) -> Manifest:
    """With its digest; nothing is published that would not pass when it is read."""
    sealed = replace(manifest, digest=codec.digest_of(manifest))
    validate(sealed)
    return sealed


def _main_dtype(placements: Sequence[Placement]) -> str:
    sizes: Counter[str] = Counter()
    for placement in placements:
        sizes[placement.dtype] += placement.bytes
    return sizes.most_common(1)[0][0]


def _percents(total: int, on_progress: OnProgress) -> Callable[[int], None]:
    """Passes on how many bytes are written, about once per percent."""
    reported = 0

    def on_bytes(done: int) -> None:
        nonlocal reported
        if done - reported >= total // 100:
            reported = done
            on_progress(ImportProgress(ImportPhase.WRITING, done, total))

    return on_bytes


def _check_space(root: Path, needed: int) -> None:
    home = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(home).free
    if free < needed:
        raise StorageFailed(f"{root} has {free} bytes free; the checkpoint needs {needed}")


def _copy_files(source: Source, directory: Path) -> tuple[File, ...]:
    directory.mkdir()
    files = []
    for name, path in source.kept.items():
        data = path.read_bytes()
        _write(directory / name, data)
        files.append(File(name, len(data), blake3(data).hexdigest()))
    sync_directory(directory)
    return tuple(files)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
