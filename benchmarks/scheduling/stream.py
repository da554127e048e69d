"""What simulated markets ask, asked of the cluster on paper: warm, cold, evicting and waiting requests as they come."""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter

from sim.scenarios import MARKETS

MODELS = 1000  # of one market, at most; with more, several lie side by side
WAKE_S = 0.1  # what comes within so long is told in one wake


def wakes(models: int, count: int) -> Iterator[list[int]]:
    """About `count` requests, by the numbers of their models: those of each wake together."""
    sides = max(1, models // MODELS)
    found, until_s = list[int](), WAKE_S
    for at_s, number in heapq.merge(*(_asked(side, models // sides, count / sides) for side in range(sides))):
        while at_s >= until_s:
            yield found
            found, until_s = [], until_s + WAKE_S
        found.append(number)
    yield found


def _asked(side: int, models: int, count: float) -> list[tuple[float, int]]:
    """By one market, in order: when, and the numbers of models, which it has for itself."""
    market = MARKETS["market"].workload(side)
    plain = replace(market, models=models, duration_s=count / market.rps)
    numbers = ((one.at_s, side * models + int(one.model.rpartition("-")[2])) for one in plain.requests())
    return sorted(numbers, key=itemgetter(0))
