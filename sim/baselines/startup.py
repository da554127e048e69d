"""How long a load takes, by the rule that the baselines share: what is queued on the node's disk and network comes
first, as if loads came one after another, and each tier gives its bytes at its nominal rate."""

from dataclasses import dataclass

from sim.policy import LoadState, ModelState, NodeState, RunningRequest


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes of a checkpoint by the tier that they have to come from."""

    dram: int
    disk: int
    origin: int


@dataclass(frozen=True, slots=True)
class Queue:
    """Seconds that a node's disk and network are busy with loads that began before."""

    disk_s: float = 0.0
    network_s: float = 0.0

    def then(self, node: NodeState, parts: Parts) -> "Queue":
        """The queue behind another load."""
        disk_s = self.disk_s + parts.disk / node.disk_bytes_per_s
        return Queue(disk_s, self.network_s + parts.origin / node.origin_bytes_per_s)


def parts(node: NodeState, model: ModelState) -> Parts:
    """The nearer tier's bytes lie in the farther, too."""
    dram = min(model.bytes, node.dram.get(model.name, 0))
    disk = max(0, min(model.bytes, node.disk.get(model.name, 0)) - dram)
    return Parts(dram, disk, model.bytes - dram - disk)


def queue(node: NodeState, models: dict[str, ModelState]) -> Queue:
    """Of the loads under way: a load's nearest bytes come first, so what is left of it is the farthest."""
    found = Queue()
    for load in node.loads:
        found = found.then(node, _left(node, models[load.spot.model], load))
    return found


def load_s(node: NodeState, model: ModelState, queued: Queue) -> float:
    """Seconds until a replica is ready that begins to load now."""
    has = parts(node, model)
    seconds = has.dram / node.dram_bytes_per_s + model.init_s
    if has.disk:
        seconds += queued.disk_s + has.disk / min(node.disk_bytes_per_s, node.dram_bytes_per_s)
    if has.origin:
        seconds += queued.network_s + has.origin / min(node.origin_bytes_per_s, node.dram_bytes_per_s)
    return seconds


def resume_s(model: ModelState, request: RunningRequest) -> float:
    """Seconds of computing a request's KV anew, in proportion to its tokens."""
    return model.prefill_token_s * (request.prompt_tokens + request.emitted_tokens)


def _left(node: NodeState, model: ModelState, load: LoadState) -> Parts:
    whole = parts(node, model)
    origin = min(load.left_bytes, whole.origin)
    disk = min(load.left_bytes - origin, whole.disk)
    return Parts(load.left_bytes - origin - disk, disk, origin)
