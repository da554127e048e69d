"""Small clusters for tests of the simulator: weights of 10 bytes, a pool of 2, disks that give 1 byte a second."""

from sim.batch import Costs
from sim.request import Request
from sim.spec import ClusterSpec, ModelSpec, NodeSpec

COSTS = Costs(prefill_s=0.5, prefill_token_s=0.01, step_s=0.1, step_sequence_s=0.0, step_token_s=0.0)


def node(**changes: float) -> NodeSpec:
    """With one worker that has room for one replica of two slots, and DRAM for two checkpoints."""
    plain = {
        "workers": 1,
        "memory_bytes": 12,
        "kv_bytes": 2,
        "slots": 2,
        "unload_s": 0.25,
        "dram_bytes": 20,
        "disk_bytes": 1000,
        "dram_bytes_per_s": 10.0,
        "disk_bytes_per_s": 1.0,
        "origin_bytes_per_s": 0.5,
    }
    return NodeSpec(**{**plain, **changes})  # type: ignore[arg-type]


def cluster(*models: str, nodes: int = 1, copies: int = 1, **changes: float) -> ClusterSpec:
    """Models of 10 bytes."""
    made = tuple(ModelSpec(name, 10, 0.5, COSTS) for name in models)
    return ClusterSpec(nodes, node(**changes), made, copies)


def ask(at_s: float, model: str = "a", answer: int = 3) -> Request:
    """A prompt of 50 tokens: 1 s of prefill; each further token takes 0.1 s."""
    return Request(at_s, model, 50, answer)
