"""The floor without load time: a policy on a cluster whose loads and unloads take none. What is left is queueing for
slots and devices, which no placement of checkpoints can mend."""

from dataclasses import replace

from sim.spec import ClusterSpec

AT_ONCE_BYTES_PER_S = 1e30


def without_load_time(spec: ClusterSpec) -> ClusterSpec:
    """The same cluster, with endless rates and nothing to initialise: for `simulate`, with the policy in question."""
    node = replace(
        spec.node,
        unload_s=0.0,
        dram_bytes_per_s=AT_ONCE_BYTES_PER_S,
        disk_bytes_per_s=AT_ONCE_BYTES_PER_S,
        origin_bytes_per_s=AT_ONCE_BYTES_PER_S,
    )
    return replace(spec, node=node, models=tuple(replace(model, init_s=0.0) for model in spec.models))
