"""The same cluster in the simulator, and the same requests there."""

from collections.abc import Sequence

from benchmarks.scheduling.calibration.probe import Probed
from benchmarks.scheduling.calibration.scene import FOREVER_S, Running
from policy.knobs import Knobs
from sim.judgement import Judgement
from sim.outcome import Run
from sim.request import Request
from sim.run import simulate
from sim.spec import ClusterSpec, ModelSpec, NodeSpec

AT_ONCE = 1e15  # bytes a second: what a start from memory takes was measured as a whole


def simulated(cluster: Running, probed: Probed, requests: Sequence[Request]) -> Run:
    """One node with the cluster's workers; what was measured is all that it is told."""
    size = max(model.checkpoint.bytes for model in cluster.models)
    node = NodeSpec(
        workers=cluster.scene.workers,
        memory_bytes=cluster.worker_bytes,
        kv_bytes=cluster.scene.kv_bytes,
        slots=cluster.scene.slots,
        unload_s=0.0,  # is in what a start takes
        dram_bytes=cluster.store_bytes,
        disk_bytes=len(cluster.models) * size,
        dram_bytes_per_s=AT_ONCE,
        disk_bytes_per_s=size / max(1e-6, probed.starts.disk_s - probed.starts.dram_s),
        origin_bytes_per_s=AT_ONCE,
    )
    models = tuple(ModelSpec(one.name, size, probed.starts.dram_s, probed.costs) for one in cluster.models)
    return simulate(ClusterSpec(1, node, models), requests, Judgement(Knobs(keep_alive_s=FOREVER_S, hold_s=600.0)))
