"""The cluster as the public API shows it."""

from dataclasses import replace

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    ClusterFacts,
    Kind,
    Member,
    ModelEntry,
    NumericsLevel,
    ReplicaFacts,
    ReplicaState,
    RunnerKind,
    StoreFacts,
    Tier,
    WorkerFacts,
)
from services.gateway.describe import member_of, model_of

SUMMARY = CheckpointSummary("d1", 1000, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)


def entry(keep_alive_s: float | None = None) -> ModelEntry:
    """A model of the catalogue."""
    return ModelEntry("m", SUMMARY, "/models/m", keep_alive_s, created_s=10.25, updated_s=20.5, revision=3)


def worker(worker_id: str, *replicas: ReplicaFacts) -> Member:
    """A worker with these."""
    return Member(Kind.WORKER, worker_id, "n1", "w:1", 9, worker=WorkerFacts("host", 4096, 64, 4, replicas))


def store(store_id: str, tier: Tier, digest: str = "d1") -> Member:
    """A store with one checkpoint."""
    held = (CheckpointFacts(digest, 1000, tier, disk_bytes=1000, dram_bytes=620),)
    return Member(Kind.STORE, store_id, "n1", "s:1", 8, store=StoreFacts(1000, 5000, 2000, held, 9000, 2))


def shown(*members: Member, keep_alive_s: float | None = None) -> pb.Model:
    """The model among these members."""
    return model_of(ClusterFacts({f"{m.kind}/{m.id}": m for m in members}), entry(keep_alive_s))


def test_a_model_without_a_replica_is_cold_and_complete() -> None:
    model = shown()
    assert (model.name, model.etag, model.state) == ("m", "3", pb.MODEL_STATE_COLD)
    assert (model.spec.checkpoint, model.spec.source) == ("d1", "/models/m")
    assert (model.checkpoint.digest, model.checkpoint.bytes, model.checkpoint.source) == ("d1", 1000, "/models/m")
    assert (model.create_time.ToMicroseconds(), model.update_time.ToMicroseconds()) == (10_250_000, 20_500_000)
    assert (list(model.replicas), model.nearest_tier) == ([], words.TIER_UNSPECIFIED)


def test_a_keep_alive_of_zero_is_not_one_that_is_unset() -> None:
    assert not shown().spec.HasField("keep_alive")
    zero = shown(keep_alive_s=0.0)
    assert zero.spec.HasField("keep_alive")
    assert zero.spec.keep_alive.ToNanoseconds() == 0
    assert shown(keep_alive_s=1.5).spec.keep_alive.ToNanoseconds() == 1_500_000_000


def test_one_ready_replica_makes_a_model_ready() -> None:
    loading = worker("w1", ReplicaFacts("m", "d1", ReplicaState.LOADING, 10))
    ready = worker("w2", ReplicaFacts("m", "d1", ReplicaState.READY, 10, running=2))
    assert shown(loading).state == pb.MODEL_STATE_LOADING
    model = shown(loading, ready, worker("w3", ReplicaFacts("other", "d2", ReplicaState.READY, 10)))
    assert model.state == pb.MODEL_STATE_READY
    assert [(r.worker_id, r.state, r.running) for r in model.replicas] == [
        ("w1", pb.REPLICA_STATE_LOADING, 0),
        ("w2", pb.REPLICA_STATE_READY, 2),
    ]


def test_a_draining_replica_does_not_make_a_model_warm() -> None:
    assert shown(worker("w1", ReplicaFacts("m", "d1", ReplicaState.DRAINING, 10))).state == pb.MODEL_STATE_COLD


def test_the_nearest_tier_of_all_stores_is_shown() -> None:
    assert shown(store("s1", Tier.DISK)).nearest_tier == words.TIER_DISK
    assert shown(store("s1", Tier.DISK), store("s2", Tier.DRAM)).nearest_tier == words.TIER_DRAM
    assert shown(store("s1", Tier.DRAM, digest="other")).nearest_tier == words.TIER_UNSPECIFIED


def test_a_worker_is_shown_with_its_replicas() -> None:
    facts = ReplicaFacts(
        model="m",
        digest="d1",
        state=ReplicaState.READY,
        bytes=100,
        running=2,
        waiting=1,
        runner=RunnerKind.OPAQUE,
        numerics=NumericsLevel.PATH_INVARIANT,
        fingerprint="f00d",
    )
    member = member_of(worker("w1", facts))
    assert (member.kind, member.id, member.node, member.address, member.fence) == ("worker", "w1", "n1", "w:1", 9)
    assert (member.worker.device, member.worker.memory_bytes, member.worker.memory_used_bytes) == ("host", 4096, 100)
    (replica,) = member.worker.replicas
    assert (replica.model, replica.checkpoint, replica.state) == ("m", "d1", pb.REPLICA_STATE_READY)
    assert (replica.running, replica.waiting, replica.bytes) == (2, 1, 100)
    assert (replica.numerics, replica.numerics_fingerprint) == (words.NUMERICS_LEVEL_PATH_INVARIANT, "f00d")
    adapter = ReplicaFacts("a", "d2", ReplicaState.READY, 3, base="d1", beside="m")
    (shown_adapter,) = member_of(worker("w1", adapter)).worker.replicas
    assert (shown_adapter.base, shown_adapter.beside, replica.base) == ("d1", "m", "")
    assert replica.runner == words.RUNNER_KIND_OPAQUE


def test_a_store_is_shown_with_its_checkpoints() -> None:
    status = member_of(store("s1", Tier.DRAM)).store
    assert (status.disk_used_bytes, status.dram_capacity_bytes, status.dram_used_bytes) == (1000, 5000, 2000)
    assert (status.disk_capacity_bytes, status.corrupt_units) == (9000, 2)
    assert [(c.checkpoint, c.bytes, c.tier) for c in status.checkpoints] == [("d1", 1000, words.TIER_DRAM)]
    assert [(c.disk_bytes, c.dram_bytes) for c in status.checkpoints] == [(1000, 620)]


def test_while_an_update_is_under_way_both_versions_are_shown_and_the_model_is_ready() -> None:
    both = worker(
        "w1",
        ReplicaFacts("m", "d0", ReplicaState.READY, 10, running=1),
        ReplicaFacts("m", "d1", ReplicaState.LOADING, 10),
    )
    former = replace(SUMMARY, digest="d0")
    model = model_of(ClusterFacts({"worker/w1": both}), replace(entry(), previous=former))
    assert (model.state, model.checkpoint.digest, model.previous_checkpoint) == (pb.MODEL_STATE_READY, "d1", "d0")
    assert [(r.worker_id, r.checkpoint, r.state) for r in model.replicas] == [
        ("w1", "d0", pb.REPLICA_STATE_READY),
        ("w1", "d1", pb.REPLICA_STATE_LOADING),
    ]
    assert shown().previous_checkpoint == ""


def test_a_member_without_facts_has_none() -> None:
    assert member_of(Member(Kind.SCHEDULER, "s", "n", "a:1")).WhichOneof("facts") is None
