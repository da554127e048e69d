"""Directories that are no checkpoint, or no honest one, are refused before anything is mapped."""

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from mesh.checkpoint.errors import (
    BadShard,
    CheckpointError,
    NotACheckpoint,
    PathEscapes,
    PickleRefused,
    TensorClash,
    UnsupportedModel,
)
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.source import Form, Source, inspect

from .samples import edit_config

INDEX = "model.safetensors.index.json"


def look(directory: Path) -> Source:
    """What inspect() makes of a directory of this machine."""
    with closing(LocalOrigin(directory)) as origin:
        return inspect(origin)


def _shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def test_a_sharded_directory_is_understood(llama: Path) -> None:
    source = look(llama)
    assert len(source.shards) == len(_shards(llama)) > 2
    assert source.config["model_type"] == "llama"
    assert source.bytes == 4 * source.elements > 100_000


def test_only_known_small_files_are_kept(llama: Path) -> None:
    for name in ("modeling_llama.py", "pytorch_model.bin", "README.md", "tokenizer.model", "merges.txt", "x.json"):
        (llama / name).write_text("x")
    (llama / "LICENSE.d").mkdir()
    assert set(look(llama).kept) == {
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer.model",
    }


def test_a_name_that_no_manifest_can_spell_is_not_kept(llama: Path) -> None:
    (llama / os.fsdecode(b"LICENSE\xff")).write_text("x")
    assert "LICENSE" in look(llama).kept
    assert all(name.isascii() for name in look(llama).kept)


def test_a_missing_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="is no directory"):
        look(tmp_path / "nowhere")


def test_a_directory_without_config_is_no_checkpoint(llama: Path) -> None:
    (llama / "config.json").unlink()
    with pytest.raises(NotACheckpoint, match=r"has no config\.json"):
        look(llama)


def test_a_directory_without_weights_is_no_checkpoint(llama: Path) -> None:
    for path in [*_shards(llama), llama / INDEX]:
        path.unlink()
    with pytest.raises(NotACheckpoint, match="is the download complete"):
        look(llama)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "m.pt"]
)
def test_a_directory_of_pickles_is_refused(llama: Path, name: str) -> None:
    for path in [*_shards(llama), llama / INDEX]:
        path.unlink()
    (llama / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PickleRefused, match=name):
        look(llama)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ('{"model_type": "llama", "model_type": "gpt2"}', "'model_type' appears twice"),
    ],
)
def test_a_config_that_is_no_json_object_is_no_checkpoint(llama: Path, text: str, problem: str) -> None:
    (llama / "config.json").write_text(text)
    with pytest.raises(NotACheckpoint, match=problem):
        look(llama)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": None}, "names no model_type"),
        ({"model_type": ""}, "names no model_type"),
        ({"model_type": "\ud800"}, "names no model_type"),
        ({"quantization_config": {"quant_method": "gptq"}, "model_type": None}, "names no model_type"),
        ({"dtype": "save"}, "is no dtype"),
        ({"torch_dtype": 16}, "is no dtype"),
    ],
)
def test_a_config_of_what_cannot_be_served_is_refused(llama: Path, changes: dict[str, object], problem: str) -> None:
    edit_config(llama, **changes)
    with pytest.raises(UnsupportedModel, match=problem):
        look(llama)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"quantization_config": {}},
        {"compression_config": {"format": "pack-quantized"}},
        {"text_config": {"quantization_config": {"quant_method": "awq"}}},
    ],
)
def test_a_config_of_quantized_weights_has_them_kept_as_they_are(llama: Path, changes: dict[str, object]) -> None:
    assert look(llama).form is Form.STATE
    edit_config(llama, **changes)
    assert look(llama).form is Form.AS_STORED


def test_a_truncated_shard_is_refused(llama: Path) -> None:
    shard = _shards(llama)[1]
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(BadShard, match="is truncated"):
        look(llama)


def test_a_missing_shard_is_refused(llama: Path) -> None:
    shard = _shards(llama)[1]
    shard.unlink()
    with pytest.raises(BadShard, match=f"lacks '{shard.name}'"):
        look(llama)


def test_a_tensor_in_two_shards_is_a_clash(llama: Path) -> None:
    first, second, *_ = _shards(llama)
    shutil.copy(first, second)
    with pytest.raises(TensorClash, match=rf"(?s){first.name}.*{second.name}"):
        look(llama)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "a/../../b.safetensors"])
def test_an_index_that_points_outside_is_refused(llama: Path, name: str) -> None:
    (llama.parent / "secret.safetensors").write_bytes(_shards(llama)[0].read_bytes())
    _point_index_at(llama, name)
    with pytest.raises(PathEscapes, match="only plain names"):
        look(llama)


@pytest.mark.parametrize("name", ["model.bin", 7, "x" * 5000 + ".safetensors"])
def test_an_index_that_names_no_shard_is_refused(llama: Path, name: object) -> None:
    _point_index_at(llama, name)
    with pytest.raises(BadShard):
        look(llama)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_a_malformed_index_is_refused(llama: Path, text: str) -> None:
    (llama / INDEX).write_text(text)
    with pytest.raises(BadShard):
        look(llama)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX])
def test_a_link_that_leads_outside_is_refused(llama: Path, name: str) -> None:
    outside = llama.parent / "outside"
    (llama / name).rename(outside)
    (llama / name).symlink_to(outside)
    with pytest.raises(PathEscapes, match="outside the directory"):
        look(llama)


def test_a_shard_that_is_a_link_outside_is_refused(llama: Path) -> None:
    shard = _shards(llama)[0]
    shard.rename(llama.parent / "outside")
    shard.symlink_to("../outside")
    with pytest.raises(PathEscapes, match="outside the directory"):
        look(llama)


def test_a_link_inside_the_directory_is_followed(llama: Path) -> None:
    shard = _shards(llama)[0]
    (llama / "data").mkdir()
    shard.rename(llama / "data" / "blob")
    shard.symlink_to("data/blob")
    assert len(look(llama).shards) == len(_shards(llama))


def test_a_snapshot_of_the_hub_cache_is_understood(llama: Path, tmp_path: Path) -> None:
    """models--x/snapshots/<revision>/* are links to models--x/blobs/*."""
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(llama.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert look(snapshot).bytes > 100_000


@pytest.mark.parametrize("target", ["config.json", "nowhere"])
def test_a_link_that_leads_nowhere_counts_as_missing(llama: Path, target: str) -> None:
    (llama / "config.json").unlink()
    (llama / "config.json").symlink_to(target)
    with pytest.raises(NotACheckpoint, match=r"has no config\.json"):
        look(llama)


def test_a_pipe_is_not_waited_for(llama: Path) -> None:
    (llama / "config.json").unlink()
    os.mkfifo(llama / "config.json")
    with pytest.raises(NotACheckpoint, match=r"has no config\.json"):
        look(llama)


def test_a_huge_tokenizer_is_not_copied(llama: Path) -> None:
    os.truncate(llama / "tokenizer.json", 1 << 40)
    with pytest.raises(CheckpointError, match="is no file of its kind"):
        look(llama)


def _point_index_at(directory: Path, name: object) -> None:
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = name
    (directory / INDEX).write_text(json.dumps(index))
