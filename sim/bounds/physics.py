"""What loads take at the rates of the wires alone, and what follows for requests.

A model's first one cannot be answered before a load of it, whatever the policy, as long as nothing is loaded that
nobody has asked for.
"""

from collections.abc import Sequence

from mesh.facts import Tier
from sim.cluster import Cluster
from sim.engine import Engine
from sim.request import Request
from sim.spec import ClusterSpec, ModelSpec, NodeSpec


def load_s(node: NodeSpec, model: ModelSpec, tier: Tier) -> float:
    """Seconds of a load of which everything comes from one tier, alone on its way: bytes over the narrowest rate."""
    rates = {Tier.DRAM: node.dram_bytes_per_s, Tier.DISK: node.disk_bytes_per_s, Tier.ORIGIN: node.origin_bytes_per_s}
    return model.bytes / min(rates[tier], node.dram_bytes_per_s) + model.init_s


def on_disk(spec: ClusterSpec) -> set[str]:
    """The models that some node's disk has from the beginning."""
    cluster = Cluster(Engine(), spec, lambda: None)
    return {name for node in cluster.nodes.values() for name in node.disk_pool.held}


def first_loads_s(spec: ClusterSpec, requests: Sequence[Request]) -> float:
    """Seconds of the first load of each model that is asked for, all together: from a disk that has it from the
    beginning, else from the origin."""
    there, models = on_disk(spec), {model.name: model for model in spec.models}
    asked = {request.model for request in requests} & models.keys()
    return sum(load_s(spec.node, models[name], Tier.DISK if name in there else Tier.ORIGIN) for name in sorted(asked))


def prefills_s(spec: ClusterSpec, requests: Sequence[Request]) -> float:
    """Seconds of all prompts, each alone on a device."""
    costs = {model.name: model.costs for model in spec.models}
    return sum(costs[one.model].prefill(one.prompt_tokens) for one in requests if one.model in costs)


def mean_s(spec: ClusterSpec, requests: Sequence[Request]) -> float:
    """No policy has a mean latency below this one that loads nothing before it is asked for."""
    return (first_loads_s(spec, requests) + prefills_s(spec, requests)) / len(requests)
