"""Hugging Face directory in, checkpoint out. Conversion happens here, once; loading never converts anything."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from blake3 import blake3

from mesh.checkpoint import codec
from mesh.checkpoint.adapter_fit import check_base
from mesh.checkpoint.architecture import Architecture, max_context, understand
from mesh.checkpoint.as_stored import About, about_adapter, about_stored, place_adapter, place_stored, tensors_of
from mesh.checkpoint.errors import NotACheckpoint, StorageFailed, UnsupportedModel
from mesh.checkpoint.expression import Expression
from mesh.checkpoint.journal import Journal
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.part import PartWriter
from mesh.checkpoint.placing import place
from mesh.checkpoint.plan import Placement, Plan, lay_out
from mesh.checkpoint.probe import Trace, trace
from mesh.checkpoint.progress import ImportPhase, ImportProgress, OnProgress, paced
from mesh.checkpoint.records import VERSION, File, Manifest, Part, Tie, Unit
from mesh.checkpoint.runners import cache_name
from mesh.checkpoint.source import MAX_KEPT_BYTES, Form, Source, inspect, read_small
from mesh.checkpoint.staging import free_bytes, journal_of, make_way, publish, staged, staged_bytes, sync_directory
from mesh.checkpoint.stream import Reader
from mesh.checkpoint.tasks import embeds
from mesh.checkpoint.validate import validate
from mesh.checkpoint.verify import FILES, MANIFEST, MAX_MANIFEST_BYTES, load_manifest
from mesh.checkpoint.weights import load
from mesh.facts import RunnerKind

PART = "part-000.bin"
DEFAULT_PACE = Pace()


@dataclass(frozen=True, slots=True)
class Model:
    """A source understood: how its tensors are made, and where their bytes are to go."""

    about: About
    tensors: Mapping[str, Expression]
    ties: tuple[Tie, ...]
    placements: tuple[Placement, ...]
    plan: Plan


def import_directory(
    source: Path, root: Path, *, on_progress: OnProgress, base: Manifest | None = None, pace: Pace = DEFAULT_PACE
) -> Manifest:
    """import_origin() of a directory of this machine."""
    with closing(LocalOrigin(source)) as origin:
        return import_origin(origin, root, on_progress=on_progress, base=base, pace=pace)


def import_origin(
    source: Origin, root: Path, *, on_progress: OnProgress, base: Manifest | None = None, pace: Pace = DEFAULT_PACE
) -> Manifest:
    """Converts `source` into `root`/<digest>/; an equal checkpoint that is there already stays as it is.

    `base` is what an adapter adapts; nothing else has one.

    Deterministic: the same tensors, config and tokenizer give the same digest, however they were sharded. Raises a
    CheckpointError; whatever happens, `root` has either the whole checkpoint or none that counts. After a kill, a
    signal or an origin out of reach, the same import goes on where it was, if neither source nor software changed.
    """
    found = inspect(source)
    begun = min(staged_bytes(root, source.url), found.bytes)
    on_progress(ImportProgress(ImportPhase.READING, begun, found.bytes))
    with Reader(source, pace) as reader:
        model = _understood(found, base, reader)
        try:
            _make_room(root, source.url, model.plan.bytes)
            with staged(root, source.url) as content:
                journal = Journal.open(journal_of(content), _key(found, model.plan))
                writer = PartWriter(content / PART, model.plan, journal, pace)
                units = writer.write(model.tensors, reader, paced(model.plan.bytes, on_progress, time.monotonic))
                on_progress(ImportProgress(ImportPhase.PUBLISHING, model.plan.bytes, model.plan.bytes))
                manifest = _finish(content, found, model, units)
                return load_manifest(publish(content, manifest.digest))
        except OSError as error:
            raise StorageFailed(f"{root} cannot hold the checkpoint: {error}") from error


def _understood(source: Source, base: Manifest | None, reader: Reader) -> Model:
    check_base(source, base)
    if source.form is Form.STATE:
        return _state(source, reader)
    if base is None:
        about, placements = about_stored(source), place_stored(source)
    else:
        about, placements = about_adapter(base), tuple(place_adapter(source))
    return Model(about, tensors_of(source), (), placements, lay_out(placements))


def _state(source: Source, reader: Reader) -> Model:
    architecture = understand(source)
    weights = load(source, architecture, reader)
    seen = trace(architecture, weights.activation_dtype)
    placements = tuple(place(architecture, weights, seen))
    about = About(
        architecture=architecture.name,
        model_type=architecture.config.model_type,
        transformers=transformers.__version__,
        max_context=max_context(architecture),
        kv=seen.kv,
        runner=_runner(architecture, seen),
    )
    return Model(about, weights.tensors, weights.ties, placements, lay_out(placements))


def _runner(architecture: Architecture, seen: Trace) -> RunnerKind | None:
    """None for what the packed engine runs, and for what nothing runs."""
    if embeds(architecture.name):
        return RunnerKind.ENCODER
    return RunnerKind.OPAQUE if seen.kv is None and cache_name(architecture.skeleton) else None


def _finish(content: Path, source: Source, model: Model, units: tuple[Unit, ...]) -> Manifest:
    """Writes all files of the checkpoint beside its part; the manifest comes last."""
    files = _copy_files(source, content / FILES)
    manifest = _sealed(_describe(source, model, units, files))
    data = codec.dump(manifest)
    if len(data) > MAX_MANIFEST_BYTES:
        raise UnsupportedModel(
            f"{source.origin.url} has {len(manifest.tensors)} tensors, which need a manifest of {len(data)} bytes; "
            f"at most {MAX_MANIFEST_BYTES} can be read"
        )
    _write(content / MANIFEST, data)
    return manifest


def _key(source: Source, plan: Plan) -> str:
    """Equal for two imports whose bytes are the same, in the same places."""
    made_by = (VERSION, transformers.__version__, torch.__version__)
    return blake3(repr((source.origin.identity, made_by, plan)).encode(errors="surrogatepass")).hexdigest()


def _describe(source: Source, model: Model, units: tuple[Unit, ...], files: tuple[File, ...]) -> Manifest:
    return Manifest(
        digest="",
        source=source.origin.url,
        architecture=model.about.architecture,
        model_type=model.about.model_type,
        transformers=model.about.transformers,
        config_digest=next(file.hash for file in files if file.path == source.config_name),
        dtype=_main_dtype(model.placements),
        max_context=model.about.max_context,
        parts=(Part(PART, rank=0, bytes=model.plan.bytes),),
        units=units,
        tensors=model.plan.tensors,
        ties=model.ties,
        files=files,
        kv=model.about.kv,
        base=model.about.base,
        runner=model.about.runner,
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


def _make_room(root: Path, name: str, total: int) -> None:
    """Raises StorageFailed if the rest of an import does not fit, even without what others have left half done."""
    needed = total - make_way(root, name, total)
    free = free_bytes(root)
    if free < needed:
        raise StorageFailed(f"{root} has {free} bytes free; the checkpoint needs {needed}")


def _copy_files(source: Source, directory: Path) -> tuple[File, ...]:
    """All of them anew, whatever an earlier import has left."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    files = []
    for name in source.kept:
        data = read_small(source.origin, name, MAX_KEPT_BYTES, NotACheckpoint)
        (directory / name).parent.mkdir(exist_ok=True)
        _write(directory / name, data)
        sync_directory((directory / name).parent)
        files.append(File(name, len(data), blake3(data).hexdigest()))
    sync_directory(directory)  # for the directories in it
    return tuple(files)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
