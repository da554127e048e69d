"""Work that processes share, each with what is compiled if that is there; so nothing of it is imported here."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import policy
import sim
from mesh.compiled import use

A = TypeVar("A")
B = TypeVar("B")


def spread(do: Callable[[A], B], pieces: Iterable[A], jobs: int) -> Iterator[B]:
    """Results as they come; of one job, in order and in this process."""
    if jobs == 1:
        yield from map(do, pieces)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin) as pool:
        yield from (one.result() for one in as_completed([pool.submit(do, piece) for piece in pieces]))


def _begin() -> None:
    """Before a process unpickles anything else."""
    for package in (policy, sim):
        use(package)
