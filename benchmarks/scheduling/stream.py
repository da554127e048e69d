"""What the simulated market asks, asked of the cluster on paper: warm, cold, evicting and waiting as they come."""

from collections.abc import Iterator
from dataclasses import replace

from sim.scenarios import MARKETS

SEED = 1
DEVICES = 16  # of the market's cluster
WAKE_S = 0.01  # what comes within so long is told in one wake


def wakes(models: int, workers: int, count: int) -> Iterator[list[int]]:
    """At least `count` requests, by the numbers of their models: those of each wake together. There are as many a
    second for each device as in the market."""
    market = MARKETS["market"].workload(SEED)
    rps = market.rps * workers / DEVICES
    found, until_s = list[int](), WAKE_S
    for request in replace(market, models=models, rps=rps, duration_s=count / rps).requests():
        while request.at_s >= until_s:
            yield found
            found, until_s = [], until_s + WAKE_S
        found.append(int(request.model.rpartition("-")[2]))
    yield found
