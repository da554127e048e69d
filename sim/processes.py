"""Work that processes share. Each runs what is compiled if this one does; so nothing of that is imported here."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import policy
import sim

A = TypeVar("A")
B = TypeVar("B")


def spread(do: Callable[[A], B], pieces: Iterable[A], jobs: int) -> Iterator[B]:
    """Results as they come; of one job, in order and in this process."""
    if jobs == 1:
        yield from map(do, pieces)
        return
    here = ([*policy.__path__], [*sim.__path__])
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, here) as pool:
        yield from (one.result() for one in as_completed([pool.submit(do, piece) for piece in pieces]))


def _begin(policy_path: list[str], sim_path: list[str]) -> None:
    """Before a process unpickles anything else: modules come from where they came from in the first one."""
    policy.__path__[:], sim.__path__[:] = policy_path, sim_path
