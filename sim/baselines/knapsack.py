"""Which replicas to clear from a worker, so that their memory is enough and the cost least: 0/1 knapsack."""

from collections.abc import Iterable

from sim.policy import Resident

Choice = tuple[float, tuple[Resident, ...]]  # cost, and what goes


def cheapest(costs: Iterable[tuple[Resident, float]], missing_bytes: int) -> Choice | None:
    """By dynamic programming over the bytes made free; None if all together are too little."""
    best: dict[int, Choice] = {0: (0.0, ())}
    for resident, cost in costs:
        for freed, (so_far, chosen) in sorted(best.items(), reverse=True):
            more = min(missing_bytes, freed + resident.bytes)
            if more not in best or so_far + cost < best[more][0]:
                best[more] = (so_far + cost, (*chosen, resident))
    return best.get(missing_bytes)
