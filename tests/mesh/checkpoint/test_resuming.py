"""An import that was killed, wherever it was, is gone on with; until then nothing of it counts."""

import fcntl
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from mesh.checkpoint.convert import import_directory, import_origin
from mesh.checkpoint.errors import OriginUnreachable
from mesh.checkpoint.journal import Journal
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.staging import digests_in, journal_of, staged_bytes, sweep
from mesh.checkpoint.verify import verify_checkpoint

from .importing import PACE, Counted, Die, Done, end_server, hear_out, import_here, importing, names
from .samples import Spec


@pytest.fixture(scope="module", autouse=True)
def no_server_stays() -> Iterator[None]:
    """Ends the fork server."""
    yield
    end_server()


@pytest.fixture(scope="session")
def source(saved: Callable[[Spec], Path]) -> Path:
    """A model of many units."""
    return saved(Spec("mixtral"))


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """What an import of it comes to when nothing happens."""
    return import_here(source, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def reports(source: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How often an import of it reports progress."""
    seen: list[ImportProgress] = []
    import_directory(source, tmp_path_factory.mktemp("counted"), on_progress=seen.append, pace=PACE)
    return len(seen)


def _file_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def _once_staged(die: Die) -> None:
    flock = fcntl.flock

    def locked(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if operation & fcntl.LOCK_NB:  # only a stage's own lock is asked for like that
            die()

    fcntl.flock = locked  # type: ignore[assignment]


def _amid_a_unit(die: Die) -> None:
    update, heard = os.preadv, 0

    def read(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal heard
        heard += len(buffers[0])
        if heard > 300_000:
            die()
        return update(descriptor, buffers, offset)

    os.preadv = read  # type: ignore[assignment]


def _between_sync_and_journal(die: Die) -> None:
    fdatasync, heard = os.fdatasync, 0

    def synced(descriptor: int) -> None:
        nonlocal heard
        fdatasync(descriptor)
        heard += 1
        if heard == 3:
            die()

    os.fdatasync = synced  # type: ignore[assignment]


def _after_a_line(die: Die) -> None:
    write, heard = os.write, 0

    def written(descriptor: int, data: bytes) -> int:
        nonlocal heard
        count = write(descriptor, data)
        heard += _file_of(descriptor) == "journal"
        if heard == 3:
            die()
        return count

    os.write = written  # type: ignore[assignment]


def _amid_a_line(die: Die) -> None:
    write, heard = os.write, 0

    def written(descriptor: int, data: bytes) -> int:
        nonlocal heard
        heard += _file_of(descriptor) == "journal"
        if heard == 3:
            write(descriptor, data[:20])
            die()
        return write(descriptor, data)

    os.write = written  # type: ignore[assignment]


def _once_synced(name: str) -> Callable[[Die], None]:
    return partial(_arm_fsync, name)


def _arm_fsync(name: str, die: Die) -> None:
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        if _file_of(descriptor) == name:
            die()

    os.fsync = synced  # type: ignore[assignment]


def _at_the_rename(after: bool) -> Callable[[Die], None]:
    return partial(_arm_rename, after)


def _arm_rename(after: bool, die: Die) -> None:
    rename = os.rename

    def renamed(source: Path, target: Path) -> None:
        if not after and Path(source).name == "checkpoint":
            die()
        rename(source, target)
        if Path(source).name == "checkpoint":
            die()

    os.rename = renamed  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("arm", "units_kept"),
    [
        (_once_staged, 0),
        (_between_sync_and_journal, 2),
        (_after_a_line, 3),
        (_amid_a_line, 2),
        (_amid_a_unit, None),
        (_once_synced("part-000.bin"), "all"),
        (_once_synced("config.json"), "all"),
        (_once_synced("manifest.json"), "all"),
        (_at_the_rename(after=False), "all"),
        (_at_the_rename(after=True), 0),
    ],
    ids=[
        "once staged", "between sync and journal", "after a line", "amid a line", "amid a unit", "part whole", "a file",
        "manifest", "before the rename", "after the rename",
    ],
)  # fmt: skip
def test_a_killed_import_is_gone_on_with(
    source: Path, root: Path, undisturbed: Done, arm: Callable[[Die], None], units_kept: int | str | None
) -> None:
    with importing(source, root, arm) as (process, progress):
        hear_out(progress)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    whole = digests_in(root)
    for digest in whole:
        verify_checkpoint(root / digest)
    swept = sweep(root)
    left = names(root) - set(whole)
    assert len(left) == (units_kept != 0)
    assert bool(swept) == (units_kept == 0)
    again = import_here(source, root)
    assert again.digest == undisturbed.digest
    assert names(root) == {undisturbed.digest}
    units = verify_checkpoint(root / again.digest).units
    if units_kept is not None:
        done = len(units) if units_kept == "all" else int(units_kept)
        assert again.first_written == (units[done - 1].offset + units[done - 1].bytes if done else 0)
        assert (again.shard_bytes < undisturbed.shard_bytes) == (done > 0)
    else:
        assert 0 < again.first_written < units[-1].offset


def test_killed_again_and_again_it_gets_there_in_the_end(
    source: Path, reports: int, root: Path, undisturbed: Done
) -> None:
    dice = random.Random(7)
    for _ in range(8):
        with importing(source, root) as (process, progress):
            with suppress(EOFError):
                for _ in range(dice.randint(1, reports // 2)):
                    progress.recv()
            process.kill()
        sweep(root)
        for digest in digests_in(root):
            verify_checkpoint(root / digest)
            assert digest == undisturbed.digest
    assert import_here(source, root).digest == undisturbed.digest
    assert names(root) == {undisturbed.digest}


@pytest.fixture
def broken_off(source: Path, root: Path) -> Path:
    """The content of a stage that an import has left."""
    with importing(source, root, _after_a_line) as (_, progress):
        hear_out(progress)
    (content,) = root.glob(".tmp-*/checkpoint")
    return content


def test_a_source_that_has_changed_is_imported_from_the_start(
    source: Path, root: Path, broken_off: Path, undisturbed: Done
) -> None:
    shard = next(source.glob("*.safetensors"))
    found = shard.stat()
    os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    try:
        again = import_here(source, root)
    finally:
        os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (again.digest, again.first_written) == (undisturbed.digest, 0)
    assert not broken_off.exists()
    assert names(root) == {undisturbed.digest}


def test_another_source_leaves_it_alone(llama: Path, root: Path, broken_off: Path) -> None:
    other = import_directory(llama, root, on_progress=lambda _progress: None)
    assert names(root) == {other.digest, broken_off.parent.name}


def test_it_goes_where_another_import_needs_the_room(
    llama: Path, root: Path, broken_off: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(llama)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0 if broken_off.exists() else usage.free))
    other = import_directory(llama, root, on_progress=lambda _progress: None)
    assert names(root) == {other.digest}


def test_it_counts_as_room_for_its_own_import(
    source: Path, root: Path, broken_off: Path, undisturbed: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)
    with closing(LocalOrigin(source)) as origin:
        written = staged_bytes(root, origin.url)
    assert written >= (broken_off / "part-000.bin").stat().st_size // 4096 * 4096 > 0
    total = undisturbed.part_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=total - written))
    assert import_here(source, root).digest == undisturbed.digest


def _flip(part: Path, offset: int) -> None:
    with part.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_bytes_that_are_not_what_the_journal_says_are_written_again(
    source: Path, root: Path, broken_off: Path, undisturbed: Done
) -> None:
    part = broken_off / "part-000.bin"
    last = Journal.open(journal_of(broken_off), journal_of(broken_off).read_text().split()[2])
    assert len(last.hashes) == 3
    _flip(part, part.stat().st_size - 1)
    again = import_here(source, root)
    assert (again.digest, again.first_written) == (undisturbed.digest, 0)


def test_a_part_that_has_lost_bytes_is_written_again(
    source: Path, root: Path, broken_off: Path, undisturbed: Done
) -> None:
    os.truncate(broken_off / "part-000.bin", 1000)
    again = import_here(source, root)
    assert (again.digest, again.first_written) == (undisturbed.digest, 0)


def test_an_origin_out_of_reach_costs_only_what_was_in_flight(source: Path, root: Path, undisturbed: Done) -> None:
    class Flaky(Counted):
        def read_into(self, name: str, offset: int, view: memoryview) -> None:
            if self.shard_bytes > 300_000:
                raise OriginUnreachable("no answer; try again")
            super().read_into(name, offset, view)

    with closing(Flaky(source)) as origin, pytest.raises(OriginUnreachable, match="no answer"):
        import_origin(origin, root, on_progress=lambda _progress: None, pace=PACE)
    assert digests_in(root) == ()
    again = import_here(source, root)
    assert again.digest == undisturbed.digest
    assert again.first_written > 100_000
    assert again.shard_bytes < undisturbed.shard_bytes - 100_000


def test_who_waits_for_an_import_of_the_same_goes_on_with_it_when_it_is_killed(
    source: Path, root: Path, undisturbed: Done
) -> None:
    with importing(source, root) as (process, progress):
        assert process.pid is not None
        while (said := progress.recv()).phase is not ImportPhase.WRITING or said.bytes_done < 200_000:
            pass
        os.kill(process.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(import_here, source, root)
            process.kill()
            done = second.result()
    assert done.digest == undisturbed.digest
    assert done.first_written > 0
    assert names(root) == {done.digest}
