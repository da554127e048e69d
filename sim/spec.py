"""What a simulated cluster is made of. Sizes in bytes, rates in bytes a second."""

from dataclasses import dataclass

from sim.batch import Costs


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Machines that are all alike. A worker is one device; its bus is its own, disk and network are the node's."""

    workers: int
    memory_bytes: int  # of each device
    kv_bytes: int  # the pool that each replica brings
    slots: int  # sequences that one replica runs at once
    unload_s: float
    dram_bytes: int  # that the store may keep checkpoints in
    disk_bytes: int
    dram_bytes_per_s: float  # from memory to one device
    disk_bytes_per_s: float
    origin_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model: its weights, what a load takes beside bytes, and what serving costs."""

    name: str
    bytes: int
    init_s: float
    costs: Costs
    kv_bytes_per_token: int = 0  # 0: it cannot be copied


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """So many nodes, and the models that anybody may ask for; checkpoints lie on disks in turn until these are full."""

    nodes: int
    node: NodeSpec
    models: tuple[ModelSpec, ...]
    copies: int = 1  # of each checkpoint, on different nodes' disks
