"""The importing child: its answers come through typed, and it never outlives who asked."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mesh.checkpoint.errors import (
    BadShard,
    CheckpointError,
    ImportFailed,
    NotACheckpoint,
    PathEscapes,
    PickleRefused,
    TensorClash,
    UnsupportedModel,
)
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.layout import total_bytes
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.staging import digests_in, sweep
from mesh.checkpoint.verify import verify_checkpoint

from .samples import Spec, edit_config, save

PARENT = """
import asyncio, sys
from pathlib import Path
from mesh.checkpoint.importer import import_in_child
asyncio.run(import_in_child(sys.argv[1], Path(sys.argv[2]), lambda progress: print(progress, flush=True)))
"""


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes long enough to write that something can happen meanwhile."""
    return save(Spec("llama", torch.float32), tmp_path_factory.mktemp("large"), vocab_size=200_000, hidden_size=128)


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each layer has more bytes than an import syncs at a time."""
    wide = {"vocab_size": 1000, "hidden_size": 2048, "intermediate_size": 4096, "num_hidden_layers": 2}
    return save(Spec("llama", torch.bfloat16), tmp_path_factory.mktemp("deep"), **wide)


def _children(pid: int) -> list[int]:
    """The importing ones, and any that nobody has waited for; a server that other tests share is neither."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, command in commands.items() if not command or b"import_process" in command]


def _names(root: Path) -> set[str] | None:
    return {path.name for path in root.iterdir()} if root.exists() else None


def _ignore(_progress: ImportProgress) -> None:
    pass


async def test_a_child_converts_and_reports(saved: Callable[[Spec], Path], root: Path) -> None:
    seen: list[ImportProgress] = []
    manifest = await import_in_child(str(saved(Spec("llama"))), root, seen.append)
    assert verify_checkpoint(root / manifest.digest) == manifest
    assert list(dict.fromkeys(progress.phase for progress in seen)) == list(ImportPhase)
    assert seen[-1].bytes_done == seen[-1].bytes_total == total_bytes(manifest)
    assert _children(os.getpid()) == []


def _no_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def _only_pickles(directory: Path) -> None:
    for shard in directory.glob("model*"):
        shard.unlink()
    (directory / "pytorch_model.bin").touch()


def _truncated(directory: Path) -> None:
    os.truncate(next(directory.glob("*.safetensors")), 1000)


def _clash(directory: Path) -> None:
    first, second, *_ = sorted(directory.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())


def _escape(directory: Path) -> None:
    (directory / "LICENSE").unlink()
    (directory / "LICENSE").symlink_to("/etc/passwd")


def _long_name(directory: Path) -> None:
    header = json.dumps({"\n" * (1 << 20): {"dtype": "F33", "shape": [0], "data_offsets": [0, 0]}}).encode()
    next(directory.glob("*.safetensors")).write_bytes(len(header).to_bytes(8, "little") + header)


def _unheard_of(directory: Path) -> None:
    edit_config(directory, model_type="unheard_of")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_no_config, NotACheckpoint),
        (_only_pickles, PickleRefused),
        (_truncated, BadShard),
        (_clash, TensorClash),
        (_escape, PathEscapes),
        (_unheard_of, UnsupportedModel),
    ],
)
async def test_an_error_keeps_its_type_on_the_way(
    llama: Path, root: Path, damage: Callable[[Path], None], expected: type[CheckpointError]
) -> None:
    damage(llama)
    with pytest.raises(expected, match=str(llama)):
        await import_in_child(str(llama), root, _ignore)
    assert _names(root) is None


async def test_an_error_message_of_megabytes_is_cut(llama: Path, root: Path) -> None:
    _long_name(llama)
    with pytest.raises(BadShard) as caught:
        await import_in_child(str(llama), root, _ignore)
    assert len(str(caught.value)) == 4096


async def test_cancelling_ends_the_child_and_its_leftovers(large: Path, root: Path) -> None:
    writing = asyncio.Event()

    def on_progress(progress: ImportProgress) -> None:
        if progress.phase is ImportPhase.WRITING:
            writing.set()

    importing = asyncio.ensure_future(import_in_child(str(large), root, on_progress))
    await writing.wait()
    assert len(_children(os.getpid())) == 1
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert _children(os.getpid()) == []
    assert _names(root) == {".lock"}


async def test_what_was_finished_when_it_was_cancelled_is_not_done_again(deep: Path, root: Path) -> None:
    first_layer = asyncio.Event()
    seen: list[ImportProgress] = []

    def on_progress(progress: ImportProgress) -> None:
        if progress.phase is ImportPhase.WRITING and progress.bytes_done > progress.bytes_total * 0.6:
            first_layer.set()

    importing = asyncio.ensure_future(import_in_child(str(deep), root, on_progress))
    await first_layer.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert digests_in(root) == ()
    assert sweep(root) == ()
    manifest = await import_in_child(str(deep), root, seen.append)
    assert verify_checkpoint(root / manifest.digest) == manifest
    assert next(each for each in seen if each.phase is ImportPhase.WRITING).bytes_done > 0
    assert _names(root) == {".lock", manifest.digest}


async def test_a_child_that_is_killed_is_an_import_that_failed(llama: Path, root: Path) -> None:
    def kill(_progress: ImportProgress) -> None:
        (child,) = _children(os.getpid())
        os.kill(child, signal.SIGKILL)

    with pytest.raises(ImportFailed, match="was killed by SIGKILL; try again"):
        await import_in_child(str(llama), root, kill)
    assert _children(os.getpid()) == []


def test_a_child_dies_with_its_parent(llama: Path, root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, llama, root], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert "READING" in parent.stdout.readline()
        (child,) = _children(parent.pid)
        watched = os.pidfd_open(child)
        parent.kill()
        ended, _, _ = select.select([watched], [], [], 2)  # torch alone would take it longer
        os.close(watched)
    assert ended


def test_by_hand_it_speaks_json_lines_and_says_how_it_is_used(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mesh.checkpoint.import_process"]
    usage = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "a Hugging Face checkpoint directory" in usage.stdout
    refused = subprocess.run([*command, tmp_path, tmp_path / "root"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stdout.startswith('{"error": {"type": "NotACheckpoint", "message": ')
    assert refused.stderr == ""
