"""Which of the machine's cores a benchmark's processes run on."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def on_cores(numbers: Collection[int]) -> Iterator[None]:
    """Keeps this thread, and processes that it starts meanwhile, on these cores until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def one_apart() -> tuple[set[int], set[int]]:
    """One core for what is measured, and the others for all else; twice the same where there is but one."""
    cores = os.sched_getaffinity(0)
    one = {max(cores)}
    return one, cores - one or cores
