"""The demand-paging floor: of all replacements in the memory of all devices, Belady's (1966) misses least often.

It evicts what is wanted again last, knowing the future; no queue or crowded disk holds up its loads, and every miss
after a model's first is a load from host memory.

It bounds the mean latency of policies that load a model when a request for it finds none, in order of arrival: not of
those that load ahead, nor of those that let a request wait until a model's replica has become free instead.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from mesh.facts import Tier
from sim.bounds.physics import first_loads_s, load_s, prefills_s
from sim.request import Request
from sim.spec import ClusterSpec


def misses(models: Sequence[str], places: int) -> int:
    """How many of these references find nothing, at best, where so many models are there at once."""
    next_use, last_seen = [0] * len(models), dict[str, int]()
    for index in range(len(models) - 1, -1, -1):
        next_use[index] = last_seen.get(models[index], len(models))
        last_seen[models[index]] = index
    there, farthest, missed = dict[str, int](), list[tuple[int, str]](), 0
    for index, model in enumerate(models):
        if model not in there:
            missed += 1
            while len(there) >= places:
                used_at, victim = heappop(farthest)
                if there.get(victim) == -used_at:  # not a use that has passed
                    del there[victim]
        there[model] = next_use[index]
        heappush(farthest, (-next_use[index], model))
    return missed


def places(spec: ClusterSpec) -> int:
    """How many replicas the cluster has memory for, all of the smallest size."""
    smallest = min(model.bytes for model in spec.models) + spec.node.kv_bytes
    return spec.nodes * spec.node.workers * (spec.node.memory_bytes // smallest)


def mean_s(spec: ClusterSpec, requests: Sequence[Request]) -> float:
    """Mean seconds from arrival to the first token: misses at the least a load can take, and prefills."""
    known = {model.name for model in spec.models}
    asked = [request.model for request in requests if request.model in known]
    again = misses(asked, places(spec)) - len(set(asked))
    least_s = min(load_s(spec.node, model, Tier.DRAM) for model in spec.models)
    return (first_loads_s(spec, requests) + again * least_s + prefills_s(spec, requests)) / len(requests)
