"""Memory of processes, pages that several share counted once among them (PSS), watched while something runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of some processes, from proc_pid_smaps(5)."""

    private: int = 0  # anonymous
    shared: int = 0  # tmpfs and memfds
    files: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.private + self.shared + self.files


def memory_of(pids: Iterable[int]) -> Memory:
    """Of those that still live."""
    private = shared = files = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            fields = _rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
            private += fields["Pss_Anon"]
            shared += fields["Pss_Shmem"]
            files += fields["Pss_File"]
    return Memory(private, shared, files)


def descendants(pid: int) -> list[int]:
    """The process's children, theirs, and so on."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


class Peak:
    """The most that some processes had at once, as far as looking every few milliseconds shows it."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self.before = self._last = memory_of(pids())
        self._private, self._files = self.before.private, self.before.files

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Self]:
        """Looks while the block runs, and once at its end."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._look_on())
            try:
                yield self
            finally:
                task.cancel()
            await asyncio.to_thread(self._look)

    @property
    def highest(self) -> Memory:
        """The most of each kind; of shared pages what there are in the end.

        While one process begins to map what another has, looking at one after the other counts pages twice.
        """
        return Memory(self._private, max(self.before.shared, self._last.shared), self._files)

    @property
    def grown_private_bytes(self) -> int:
        """The highest private memory beyond that at the start."""
        return self._private - self.before.private

    async def _look_on(self) -> None:
        while True:  # nothing tells when memory grows
            await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        self._last = now = memory_of(self._pids())
        self._private, self._files = max(self._private, now.private), max(self._files, now.files)


def _rollup(text: str) -> dict[str, int]:
    fields: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value.removesuffix(" kB")) << 10
    return fields
