"""Clusters and workloads by name. Rates of buses, disks and networks are those of PCIe 4, NVMe and 10 Gbit/s Ethernet;
what serving costs is assumed, not measured on any device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sim.arrivals import Gaps, Law, Swings
from sim.batch import Costs
from sim.spec import ClusterSpec, ModelSpec, NodeSpec
from sim.workload import Scope, Workload, model_name

ASSUMED = Costs(prefill_s=0.02, prefill_token_s=1e-4, step_s=0.025, step_sequence_s=2e-4, step_token_s=1e-7)
BYTES_6_7B = 13_400_000_000  # two for each parameter

NODE = NodeSpec(
    workers=4,
    memory_bytes=48 * 10**9,
    kv_bytes=8 * 10**9,
    slots=16,
    unload_s=0.05,
    dram_bytes=8 * BYTES_6_7B,
    disk_bytes=500 * 10**9,
    dram_bytes_per_s=25e9,
    disk_bytes_per_s=6e9,
    origin_bytes_per_s=1.25e9,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What runs, and what is asked of it, by seed."""

    cluster: ClusterSpec
    workload: Callable[[int], Workload]


def of_models(count: int, nodes: int) -> ClusterSpec:
    """Nodes of 4 devices, and so many models of 6.7 billion parameters."""
    models = tuple(ModelSpec(model_name(i), BYTES_6_7B, init_s=0.3, costs=ASSUMED) for i in range(count))
    return ClusterSpec(nodes, NODE, models)


def gsm8k(rps: float, scope: Scope) -> Callable[[int], Workload]:
    """Half an hour of short questions to 32 models, in bursts of the wildest kind that evaluations use."""
    gaps = Gaps(Law.GAMMA, 8.0)
    return lambda seed: Workload(32, rps, 1800.0, seed, gaps=gaps, scope=scope, lengths=("gsm8k-like",))


def market(seed: int) -> Workload:
    """Half an hour of 1000 models, few of which are popular, in spells and tides."""
    swings = Swings(diurnal=0.15, log_cv=1.0, on_share=0.28)
    return Workload(1000, 4.0, 1800.0, seed, skew=1.9, gaps=Gaps(Law.GAMMA, 2.0), swings=swings, tenants=50)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "gsm8k-0.2": Scenario(of_models(32, 4), gsm8k(0.2, Scope.PER_MODEL)),
        "gsm8k-0.8": Scenario(of_models(32, 4), gsm8k(0.8, Scope.PER_MODEL)),
        "gsm8k-1.4": Scenario(of_models(32, 4), gsm8k(1.4, Scope.PER_MODEL)),
        "gsm8k-1.4-aggregate": Scenario(of_models(32, 4), gsm8k(1.4, Scope.AGGREGATE)),
        "market": Scenario(of_models(1000, 4), market),
    }
)
