"""A checkpoint is there in whole or not at all, whenever its importer is killed."""

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.staging import digests_in, publish, remove, staged, sweep
from mesh.checkpoint.verify import verify_checkpoint

from .samples import Spec

DIGEST = "0123456789abcdef" * 4


def _names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} - {".lock"}


def test_a_stage_is_no_checkpoint_and_is_gone_at_the_end(root: Path) -> None:
    with staged(root) as stage:
        (stage / "file").write_text("x")
        assert digests_in(root) == ()
    assert _names(root) == set()


def test_a_published_stage_is_a_checkpoint(root: Path) -> None:
    with staged(root) as stage:
        (stage / "file").write_text("x")
        publish(stage, DIGEST)
        assert digests_in(root) == (DIGEST,)
    assert _names(root) == {DIGEST}
    assert [path.name for path in (root / DIGEST).iterdir()] == ["file"]


def test_a_sweep_leaves_a_living_stage_alone(root: Path) -> None:
    with staged(root) as stage:
        assert sweep(root) == ()
        assert stage.is_dir()


def test_a_sweep_takes_what_the_dead_left_and_nothing_else(root: Path) -> None:
    (root / DIGEST).mkdir(parents=True)
    (root / "notes").mkdir()
    for name in (".tmp-with-lock", ".tmp-without"):
        (root / name / "files").mkdir(parents=True)
    (root / ".tmp-with-lock" / ".lock").touch()
    assert sweep(root) == (".tmp-with-lock", ".tmp-without")
    assert _names(root) == {DIGEST, "notes"}
    assert sweep(root) == ()


def test_a_root_that_does_not_exist_is_empty(root: Path) -> None:
    assert digests_in(root) == ()
    assert sweep(root) == ()
    assert not root.exists()


def test_only_directories_named_by_a_digest_are_checkpoints(root: Path) -> None:
    root.mkdir()
    for name in (DIGEST, DIGEST.upper(), DIGEST[:-1], ".tmp-x"):
        (root / name).mkdir(exist_ok=True)
    (root / ("f" * 64)).touch()
    assert digests_in(root) == (DIGEST,)


def test_a_removed_checkpoint_can_still_be_read_by_who_has_it_open(root: Path) -> None:
    (root / DIGEST).mkdir(parents=True)
    (root / DIGEST / "part-000.bin").write_bytes(b"weights")
    with (root / DIGEST / "part-000.bin").open("rb") as file:
        remove(root / DIGEST)
        assert file.read() == b"weights"
    assert _names(root) == set()


# The import as a process of its own. A fork server that has torch loaded makes a dozen of them cheap.


@pytest.fixture(scope="module", autouse=True)
def no_server_stays() -> Iterator[None]:
    """Other tests count this process's children."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@contextmanager
def _importing(source: Path, root: Path) -> Iterator[tuple[int, Connection]]:
    """A running import's process id, and its progress; killed and reaped at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mesh.checkpoint.convert", "transformers.models.mixtral.modeling_mixtral"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=import_directory, args=(source, root), kwargs={"on_progress": theirs.send})
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield process.pid, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def _hear_out(progress: Connection) -> None:
    """Returns when the process has ended."""
    with suppress(EOFError):
        while True:
            progress.recv()


@pytest.fixture(scope="session")
def source(saved: Callable[[Spec], Path]) -> Path:
    """A model of many units."""
    return saved(Spec("mixtral"))


@pytest.fixture(scope="session")
def reports(source: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How often an import of it reports progress."""
    seen: list[ImportProgress] = []
    import_directory(source, tmp_path_factory.mktemp("counted"), on_progress=seen.append)
    return len(seen)


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint_or_none(source: Path, reports: int, root: Path) -> None:
    dice = random.Random(7)
    swept = whole = 0
    for _ in range(12):
        with _importing(source, root) as (pid, progress):
            for _ in range(dice.randint(1, reports)):
                progress.recv()
            os.kill(pid, signal.SIGKILL)
        swept += len(sweep(root))
        assert _names(root) == set(digests_in(root))
        for digest in digests_in(root):
            verify_checkpoint(root / digest)
            shutil.rmtree(root / digest)
            whole += 1
    assert swept > 0
    assert swept + whole <= 12


def test_after_a_kill_the_same_import_succeeds_even_unswept(source: Path, reports: int, root: Path) -> None:
    with _importing(source, root) as (pid, progress):
        for _ in range(reports // 2):
            progress.recv()
        os.kill(pid, signal.SIGKILL)
    manifest = import_directory(source, root, on_progress=lambda _progress: None)
    verify_checkpoint(root / manifest.digest)
    sweep(root)
    assert _names(root) == {manifest.digest}


def test_a_sweep_spares_an_import_that_only_stands_still(source: Path, root: Path) -> None:
    with _importing(source, root) as (pid, progress):
        while progress.recv().phase is not ImportPhase.WRITING:
            pass
        os.kill(pid, signal.SIGSTOP)
        assert sweep(root) == ()
        os.kill(pid, signal.SIGCONT)
        _hear_out(progress)
    assert len(digests_in(root)) == 1
    assert _names(root) == set(digests_in(root))


def test_two_imports_of_one_model_at_once_give_one_checkpoint(source: Path, root: Path) -> None:
    with _importing(source, root) as (_, first), _importing(source, root) as (_, second):
        _hear_out(first)
        _hear_out(second)
    (digest,) = digests_in(root)
    verify_checkpoint(root / digest)
    assert _names(root) == {digest}
