"""Directories that cannot be imported: the right status and reason, no model, and nothing left on the store's disk."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from mesh.errors import InvalidRequest, NotFound
from services.store.scrub import CURSOR
from tests.e2e.asking import deploy, until
from tests.e2e.conftest import Running
from tests.e2e.library import BIG

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def without_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def truncated(directory: Path) -> None:
    os.truncate(directory / WEIGHTS, (directory / WEIGHTS).stat().st_size - 1)


def flipped(directory: Path) -> None:
    """One bit of the header."""
    with (directory / WEIGHTS).open("r+b") as file:
        file.seek(8)
        byte = file.read(1)[0]
        file.seek(8)
        file.write(bytes([byte ^ 1]))


def pickled(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    torch.save({"weight": torch.zeros(1)}, directory / "pytorch_model.bin")


def clashing(directory: Path) -> None:
    """Two shards with the same tensors."""
    (directory / WEIGHTS).rename(directory / "model-00001-of-00002.safetensors")
    shutil.copyfile(directory / "model-00001-of-00002.safetensors", directory / "model-00002-of-00002.safetensors")
    index_of(directory, a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors")


def escaping(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory.parent / "outside.safetensors")
    index_of(directory, a="../outside.safetensors")


def linked(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory.parent / "outside.safetensors")
    (directory / WEIGHTS).symlink_to(directory.parent / "outside.safetensors")


def index_of(directory: Path, **weight_map: str) -> None:
    """Writes an index in which each tensor lies in a shard."""
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_config, "NOT_A_CHECKPOINT"),
        (truncated, "BAD_SHARD"),
        (flipped, "BAD_SHARD"),
        (pickled, "PICKLE_REFUSED"),
        (clashing, "TENSOR_CLASH"),
        (escaping, "PATH_ESCAPES"),
        (linked, "PATH_ESCAPES"),
    ],
)
async def test_a_bad_directory_is_refused_and_leaves_nothing(
    shared: Running, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(shared.library.source("llama"), directory)
    spoil(directory)
    before = on_disk(shared)
    with pytest.raises(InvalidRequest) as refused:
        await deploy(shared.client, "spoiled", source=str(directory))
    assert refused.value.reason == reason
    assert [violation.field for violation in refused.value.violations] == ["source"]
    assert on_disk(shared) == before
    assert "spoiled" not in {model.name for model in await shared.client.list()}


@pytest.mark.parametrize("source", ["models/tiny", "../models/tiny", "~/models/tiny"])
async def test_a_relative_path_is_refused(shared: Running, source: str) -> None:
    with pytest.raises(InvalidRequest, match="absolute path"):
        await deploy(shared.client, "relative", source=source)


async def test_a_directory_that_is_not_there_is_not_found(shared: Running, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        await deploy(shared.client, "missing", source=str(tmp_path / "nowhere"))
    assert refused.value.reason == "SOURCE_NOT_FOUND"


async def test_an_import_whose_client_leaves_is_ended_and_leaves_nothing(shared: Running, tmp_path: Path) -> None:
    directory = shared.library.edition(BIG, tmp_path / "model")
    before = on_disk(shared)
    async with aclosing(shared.client.deploy("abandoned", source=str(directory))) as events:
        await anext(events)

    async def look() -> set[str]:
        return on_disk(shared)

    await until(look, lambda found: found == before)
    assert "abandoned" not in {model.name for model in await shared.client.list()}


def on_disk(shared: Running) -> set[str]:
    """What lies in the store's directory; the scrub's note comes there a minute after its start, whoever looks."""
    return {path.name for path in shared.store_dir.iterdir()} - {CURSOR}
