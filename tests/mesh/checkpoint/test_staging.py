"""A checkpoint is there in whole or not at all, whenever its importer is killed."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mesh.checkpoint.errors import NotACheckpoint, OriginRefused, OriginUnreachable
from mesh.checkpoint.journal import Journal
from mesh.checkpoint.progress import ImportPhase
from mesh.checkpoint.staging import RESUMABLE_S, digests_in, journal_of, publish, remove, staged, sweep
from mesh.checkpoint.verify import verify_checkpoint

from .importing import end_server, hear_out, importing, names
from .samples import Spec

DIGEST = "0123456789abcdef" * 4


def test_a_stage_is_no_checkpoint_and_is_gone_at_the_end(root: Path) -> None:
    with staged(root) as stage:
        (stage / "file").write_text("x")
        assert digests_in(root) == ()
    assert names(root) == set()


def test_a_published_stage_is_a_checkpoint(root: Path) -> None:
    with staged(root) as stage:
        (stage / "file").write_text("x")
        publish(stage, DIGEST)
        assert digests_in(root) == (DIGEST,)
    assert names(root) == {DIGEST}
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
    assert names(root) == {DIGEST, "notes"}
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
    assert names(root) == set()


def _break_off(root: Path, hashes: Sequence[str], broken: type[BaseException]) -> None:
    with staged(root, "name") as stage:
        Journal.open(journal_of(stage), "key").append(hashes)
        raise broken


def test_a_stage_with_a_name_stays_if_it_is_broken_off_from_outside(root: Path) -> None:
    for broken in (KeyboardInterrupt, OriginUnreachable, OriginRefused):
        with pytest.raises(broken):
            _break_off(root, ["f" * 64], broken)
        (left,) = names(root)
        assert sweep(root) == digests_in(root) == ()
        with staged(root, "name") as again:
            assert again.parent.name == left
            assert Journal.open(journal_of(again), "key").hashes == ("f" * 64,)
        assert names(root) == set()


@pytest.mark.parametrize("hashes", [(), ("f" * 64,)], ids=["no unit", "a unit"])
@pytest.mark.parametrize("broken", [KeyboardInterrupt, NotACheckpoint])
def test_a_stage_stays_only_for_what_is_in_it(root: Path, hashes: tuple[str, ...], broken: type[BaseException]) -> None:
    with pytest.raises(broken):
        _break_off(root, hashes, broken)
    assert bool(names(root)) == (broken is KeyboardInterrupt and bool(hashes))


def test_a_sweep_takes_what_nobody_has_gone_on_with_for_long(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _break_off(root, ["f" * 64], KeyboardInterrupt)
    (left,) = root.glob(".tmp-*")
    written_s = (left / "journal").stat().st_mtime
    for age_s, swept in ((RESUMABLE_S - 3600, ()), (RESUMABLE_S + 3600, (left.name,))):
        os.utime(left / "journal", (written_s - age_s, written_s - age_s))
        assert sweep(root) == swept
    assert names(root) == set()


@pytest.fixture(scope="module", autouse=True)
def no_server_stays() -> Iterator[None]:
    """Ends the fork server."""
    yield
    end_server()


@pytest.fixture(scope="session")
def source(saved: Callable[[Spec], Path]) -> Path:
    """A model of many units."""
    return saved(Spec("mixtral"))


def test_a_sweep_spares_an_import_that_only_stands_still(source: Path, root: Path) -> None:
    with importing(source, root) as (process, progress):
        assert process.pid is not None
        while progress.recv().phase is not ImportPhase.WRITING:
            pass
        os.kill(process.pid, signal.SIGSTOP)
        assert sweep(root) == ()
        os.kill(process.pid, signal.SIGCONT)
        hear_out(progress)
    assert len(digests_in(root)) == 1
    assert names(root) == set(digests_in(root))


def test_two_imports_of_one_model_at_once_give_one_checkpoint(source: Path, root: Path) -> None:
    with importing(source, root) as (_, first), importing(source, root) as (_, second):
        hear_out(first)
        hear_out(second)
    (digest,) = digests_in(root)
    verify_checkpoint(root / digest)
    assert names(root) == {digest}
