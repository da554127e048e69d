"""Clusters and workloads by name: the experiments of ServerlessLLM's evaluation (OSDI'24), and harder ones. Rates of
buses, disks and networks are those of PCIe 4, NVMe and 10 Gbit/s Ethernet; what serving costs is assumed, not measured
on any device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sim.arrivals import Gaps, Law, Swings
from sim.batch import Costs
from sim.failures import Failure, NodeCrash, Partition, SlowDisk, WorkerCrash
from sim.spec import ClusterSpec, ModelSpec, NodeSpec
from sim.workload import Scope, Workload, model_name

ASSUMED = Costs(prefill_s=0.02, prefill_token_s=1e-4, step_s=0.025, step_sequence_s=2e-4, step_token_s=1e-7)
BYTES_6_7B = 13_400_000_000  # two for each parameter
KV_BYTES = {
    BYTES_6_7B: 2 * 32 * 4096 * 2,
    26 * 10**9: 2 * 40 * 5120 * 2,
    60 * 10**9: 2 * 48 * 7168 * 2,
}  # OPT's, a token

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


def no_failures(_: int) -> Sequence[Failure]:
    """Nothing breaks."""
    return ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """What runs, what is asked of it and what breaks, by seed. What comes before `warm_up_s` is not counted."""

    cluster: ClusterSpec
    workload: Callable[[int], Workload]
    failures: Callable[[int], Sequence[Failure]] = no_failures
    warm_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Size:
    """The models of one of the paper's experiments. A replica has a device for itself, its KV pool being what the
    weights leave; a model of 60 GB has two, which are one worker here, with twice the memory and the bus."""

    models: int
    bytes: int
    devices: int = 1  # of a worker

    def cluster(self, slots: int) -> ClusterSpec:
        """Four nodes of four devices, with DRAM for eight checkpoints each."""
        memory_bytes = self.devices * NODE.memory_bytes
        node = replace(
            NODE,
            workers=NODE.workers // self.devices,
            memory_bytes=memory_bytes,
            kv_bytes=memory_bytes - self.bytes,
            slots=slots,
            dram_bytes=8 * self.bytes,
            dram_bytes_per_s=self.devices * NODE.dram_bytes_per_s,
        )
        return ClusterSpec(4, node, models(self.models, self.bytes, self.devices))


SIZES: Mapping[str, Size] = MappingProxyType(
    {"6.7b": Size(32, BYTES_6_7B), "13b": Size(16, 26 * 10**9), "30b": Size(8, 60 * 10**9, devices=2)}
)


def models(count: int, size_bytes: int, devices: int = 1) -> tuple[ModelSpec, ...]:
    """Equal but for their names. Tokens take as long as a device takes to read its part of the weights."""
    share = size_bytes / BYTES_6_7B / devices
    costs = replace(ASSUMED, prefill_token_s=share * ASSUMED.prefill_token_s, step_s=share * ASSUMED.step_s)
    kv_bytes = KV_BYTES[size_bytes]
    return tuple(ModelSpec(model_name(i), size_bytes, 0.3, costs, kv_bytes) for i in range(count))


def of_models(count: int, nodes: int) -> ClusterSpec:
    """Nodes of 4 devices, and so many models of 6.7 billion parameters, two of which fit on a device."""
    return ClusterSpec(nodes, NODE, models(count, BYTES_6_7B))


def paper(size: Size, lengths: str, rps: float, scope: Scope, slots: int) -> Scenario:
    """Half an hour, in bursts of the wildest kind that evaluations use."""

    def workload(seed: int) -> Workload:
        return Workload(
            size.models, rps, 1800.0, seed, gaps=Gaps(Law.GAMMA, 8.0), scope=scope, lengths=(f"{lengths}-like",)
        )

    return Scenario(size.cluster(slots), workload)


def papers() -> Mapping[str, Scenario]:
    """Every size, length, rate and scope; with batches as our engine has them, and one request at a time as the
    paper's had."""
    return {
        f"{name}-{lengths}-{rps}{of_all}{single}": paper(size, lengths, rps, scope, slots)
        for name, size in SIZES.items()
        for lengths in ("gsm8k", "sharegpt")
        for rps in (0.2, 0.8, 1.4)
        for scope, of_all in ((Scope.PER_MODEL, ""), (Scope.AGGREGATE, "-aggregate"))
        for single, slots in (("", NODE.slots), ("-single", 1))
    }


def market(disk_bytes: int = 4 * 10**12, **changes: object) -> Scenario:
    """An hour of 1000 models, few of which are popular, in spells and tides; the first third is not counted. Each
    checkpoint is on one node's disk unless disks are too small for all; a device holds two replicas."""
    swings = Swings(diurnal=0.15, log_cv=1.0, on_share=0.28)
    plain = Workload(1000, 4.0, 3600.0, 0, skew=1.9, gaps=Gaps(Law.GAMMA, 2.0), swings=swings, tenants=50)
    changed = replace(plain, **changes)  # type: ignore[arg-type]
    spec = of_models(1000, nodes=4)
    cluster = replace(spec, node=replace(spec.node, disk_bytes=disk_bytes))
    return Scenario(cluster, lambda seed: replace(changed, seed=seed), warm_up_s=changed.duration_s / 3.0)


def breaking(seed: int) -> Sequence[Failure]:
    """In an hour, one failure of each kind behind the warm-up, and where it strikes by seed."""
    node, worker = seed % 4, f"n{(seed + 1) % 4}-w{seed % 4}"
    return (
        WorkerCrash(1500.0, worker, 30.0),
        NodeCrash(1900.0, f"n{node}", 300.0),
        Partition(2500.0, f"n{(node + 2) % 4}", 60.0),
        SlowDisk(3000.0, f"n{(node + 3) % 4}", 0.1, 300.0),
    )


MARKETS: Mapping[str, Scenario] = MappingProxyType(
    {
        "market": market(),
        "market-small-disks": market(disk_bytes=500 * 10**9),
        "market-busy": market(rps=12.0),
        "market-day": market(duration_s=86_400.0, rps=1.0, swings=Swings(diurnal=0.4, log_cv=1.0, on_share=0.28)),
        "market-bursts": market(together=True, swings=Swings(window_s=120.0, log_cv=1.0, on_share=0.07)),
        "market-failures": replace(market(), failures=breaking),
    }
)

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({**papers(), **MARKETS})
