"""The runs of the matrix, in the order in which they tell most, and one of them."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import process_time
from types import FrameType

import numpy as np

from benchmarks.scheduling.matrix.cells import CENTILES, Cell, Found
from sim.compare import BOUNDS, OURS, of_seed
from sim.policies import POLICIES
from sim.scenarios import SCENARIOS, papers

SEEDS = 30
LONGEST_S = 200.0  # of a processor, for one run
AGAIN_S = 0.01  # until an alarm that came amid somebody else's code comes once more
RIVALS = [name for name in POLICIES if not name.startswith(OURS)]
COMPARED = (OURS, *RIVALS, *BOUNDS)
CASES = (*(name for name in papers() if not name.endswith("-single")), "market", "market-failures", "market-bursts")
LONG = ("market-day",)  # takes as long as all others together
RUNNING = ("benchmarks", "mesh", "policy", "sim")  # packages whose code a run may be broken off in
ROUNDS = (
    (CASES, range(1)),
    (CASES, range(1, 3)),
    (LONG, range(1)),
    (CASES, range(3, 10)),
    (LONG, range(1, 3)),
    (CASES, range(10, SEEDS)),
    (LONG, range(3, SEEDS)),
)


def cells(cases: Sequence[str], seeds: range) -> list[Cell]:
    """Those of the matrix, in the order in which they tell most: all cases at few seeds before any at many."""
    chosen = ((case, seed) for some, each in ROUNDS for case in some for seed in each)
    return [Cell(case, one, seed) for case, seed in chosen if case in cases and seed in seeds for one in COMPARED]


def found(cell: Cell) -> Found | None:
    """One run; None of one that was given up. In a process's main thread."""
    began_s = process_time()
    try:
        with _within(LONGEST_S):
            (sample,) = of_seed(SCENARIOS[cell.case], [cell.policy], cell.seed)
    except TimeoutError:
        return None
    quantiles = np.quantile(sample.latencies, np.array(CENTILES) / 100.0)
    return Found(cell, sample.figures, tuple(float(one) for one in quantiles), process_time() - began_s)


@contextmanager
def _within(processor_s: float) -> Iterator[None]:
    """TimeoutError once so much of a processor has been used: where loads take no time, what is loaded and what makes
    way for another may take turns for ever."""

    running = True

    def end(_: int, frame: FrameType | None) -> None:
        nonlocal running
        home = str(frame.f_globals["__name__"] if frame else "").partition(".")[0]
        if running and home in RUNNING:  # a callback of the garbage collector, say, would lose it
            running = False
            raise TimeoutError

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, processor_s, AGAIN_S)
    try:
        yield
    finally:
        running = False  # one that is under way reaches nobody any more
        signal.setitimer(signal.ITIMER_PROF, 0.0)
