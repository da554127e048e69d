"""Waiting until a process that is not our child has ended, and finding the processes below one."""

import asyncio
import os
from pathlib import Path


async def until_gone(pid: int, within_s: float) -> None:
    """Returns when `pid` has ended; TimeoutError when it still runs after `within_s`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(within_s):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def below(pid: int) -> set[int]:
    """Every process that `pid` started, and those that they started."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    found: set[int] = set()
    edge = {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge} - found
        found |= edge
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
