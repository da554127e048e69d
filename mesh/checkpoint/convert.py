"""Hugging Face directory in, checkpoint out. Conversion happens here, once; loading never converts anything."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import transformers
from blake3 import blake3

from mesh.checkpoint import codec
from mesh.checkpoint.architecture import Architecture, max_context, understand
from mesh.checkpoint.errors import NotACheckpoint, StorageFailed
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.part import write_part
from mesh.checkpoint.placing import place
from mesh.checkpoint.plan import Placement, Plan, lay_out
from mesh.checkpoint.probe import Trace, trace
from mesh.checkpoint.progress import ImportPhase, ImportProgress, OnProgress
from mesh.checkpoint.records import File, Manifest, Part, Unit
from mesh.checkpoint.source import CONFIG, MAX_KEPT_BYTES, Source, inspect, read_small
from mesh.checkpoint.staging import publish, staged, sync_directory
from mesh.checkpoint.validate import validate
from mesh.checkpoint.verify import FILES, MANIFEST, load_manifest
from mesh.checkpoint.weights import Weights, load

PART = "part-000.bin"


@dataclass(frozen=True, slots=True)
class Model:
    """A source in memory, and where its bytes are to go."""

    architecture: Architecture
    weights: Weights
    trace: Trace
    placements: tuple[Placement, ...]
    plan: Plan


def import_directory(source: Path, root: Path, *, on_progress: OnProgress) -> Manifest:
    """import_origin() of a directory of this machine."""
    with closing(LocalOrigin(source)) as origin:
        return import_origin(origin, root, on_progress=on_progress)


def import_origin(source: Origin, root: Path, *, on_progress: OnProgress) -> Manifest:
    """Converts `source` into `root`/<digest>/; an equal checkpoint that is there already stays as it is.

    Deterministic: the same tensors, config and tokenizer give the same digest, however they were sharded. Raises a
    CheckpointError; whatever happens, `root` has either the whole checkpoint or nothing new.
    """
    found = inspect(source)
    on_progress(ImportProgress(ImportPhase.READING, 0, found.bytes))
    model = _read(found)
    on_progress(ImportProgress(ImportPhase.READING, found.bytes, found.bytes))
    try:
        _check_space(root, model.plan.bytes)
        with staged(root) as stage:
            manifest = _fill(stage, found, model, on_progress)
            return load_manifest(publish(stage, manifest.digest))
    except OSError as error:
        raise StorageFailed(f"{root} cannot hold the checkpoint: {error}") from error


def _read(source: Source) -> Model:
    architecture = understand(source)
    weights = load(source, architecture)
    seen = trace(architecture, weights.activation_dtype)
    placements = tuple(place(architecture, weights, seen))
    return Model(architecture, weights, seen, placements, lay_out(placements))


def _fill(stage: Path, source: Source, model: Model, on_progress: OnProgress) -> Manifest:
    """Writes all files of the checkpoint; the manifest comes last."""
    total = model.plan.bytes
    units = write_part(stage / PART, model.plan, model.weights.tensors, _percents(total, on_progress))
    on_progress(ImportProgress(ImportPhase.PUBLISHING, total, total))
    files = _copy_files(source, stage / FILES)
    manifest = _sealed(_describe(source, model, units, files))
    _write(stage / MANIFEST, codec.dump(manifest))
    return manifest


def _describe(source: Source, model: Model, units: tuple[Unit, ...], files: tuple[File, ...]) -> Manifest:
    return Manifest(
        digest="",
        source=source.origin.url,
        architecture=model.architecture.name,
        model_type=model.architecture.config.model_type,
        transformers=transformers.__version__,
        config_digest=next(file.hash for file in files if file.path == CONFIG),
        dtype=_main_dtype(model.placements),
        max_context=max_context(model.architecture.config),
        parts=(Part(PART, rank=0, bytes=model.plan.bytes),),
        units=units,
        tensors=model.plan.tensors,
        ties=model.weights.ties,
        files=files,
        kv=model.trace.kv,
    )


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
    for name in source.kept:
        data = read_small(source.origin, name, MAX_KEPT_BYTES, NotACheckpoint)
        _write(directory / name, data)
        files.append(File(name, len(data), blake3(data).hexdigest()))
    sync_directory(directory)
    return tuple(files)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
