"""A directory of checkpoints: how one gets in whole or not at all, and how leftovers of killed imports get out."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.checkpoint.errors import Damaged, ManifestError, StorageFailed
from mesh.checkpoint.validate import is_digest
from mesh.checkpoint.verify import verify_checkpoint

PREFIX = ".tmp-"
LOCK = ".lock"  # in the root: held while directories appear, vanish or are swept; in a temporary one: its writer lives


def digests_in(root: Path) -> tuple[str, ...]:
    """The digests of the checkpoints in `root`, sorted. Whether they are intact only load_manifest can say."""
    if not root.is_dir():
        return ()
    return tuple(sorted(path.name for path in root.iterdir() if is_digest(path.name) and path.is_dir()))


@contextmanager
def staged(root: Path) -> Iterator[Path]:
    """A new directory in `root` that never looks like a checkpoint and is gone at the end, unless it was published."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            stage = _temporary(root)
            alive = _lock(stage / LOCK)
    except OSError as error:
        raise StorageFailed(f"{root} cannot take a new checkpoint: {error}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(alive)


def publish(stage: Path, digest: str) -> Path:
    """Renames a finished stage to its digest and syncs. One that is there already stays, unless it is damaged."""
    root, target = stage.parent, stage.parent / digest
    if target.exists() and not _is_intact(target):
        remove(target)
    with _locked(root):
        if not target.exists():
            (stage / LOCK).unlink()
            sync_directory(stage)
            stage.rename(target)
            sync_directory(root)
    return target


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint: at once out of sight, then off the disk. Files that are open or mapped stay readable."""
    with _locked(checkpoint.parent):
        grave = _temporary(checkpoint.parent)
        checkpoint.rename(grave / checkpoint.name)
    shutil.rmtree(grave, ignore_errors=True)


def sweep(root: Path) -> tuple[str, ...]:
    """Removes temporary directories whose writer is dead; returns their names. Safe beside running imports."""
    if not root.is_dir():
        return ()
    with _locked(root):
        dead = [path for path in sorted(root.glob(f"{PREFIX}*")) if not _has_writer(path)]
        for path in dead:
            shutil.rmtree(path, ignore_errors=True)
    return tuple(path.name for path in dead)


def _temporary(root: Path) -> Path:
    path = root / f"{PREFIX}{secrets.token_hex(8)}"
    path.mkdir()
    return path


def _has_writer(stage: Path) -> bool:
    try:
        descriptor = os.open(stage / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_intact(checkpoint: Path) -> bool:
    try:
        verify_checkpoint(checkpoint)
    except (Damaged, ManifestError):
        return False
    return True


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = _lock(root / LOCK)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock until it is closed, by hand or by death."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
