"""The cluster's facts as the public API shows them. Pure."""

from google.protobuf.timestamp_pb2 import Timestamp
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2

from mesh.clients.wire import NUMERICS, TIERS, checkpoint_to, duration, numerics_to, runner_to
from mesh.facts import (
    NEARNESS,
    CheckpointFacts,
    ClusterFacts,
    Kind,
    Member,
    ModelEntry,
    ReplicaFacts,
    ReplicaState,
    StoreFacts,
    WorkerFacts,
)

REPLICA_STATES = {
    ReplicaState.LOADING: pb.REPLICA_STATE_LOADING,
    ReplicaState.READY: pb.REPLICA_STATE_READY,
    ReplicaState.DRAINING: pb.REPLICA_STATE_DRAINING,
}


def model_of(facts: ClusterFacts, entry: ModelEntry) -> pb.Model:
    """One model: what was asked for, and where it is now."""
    replicas = [
        pb.ModelReplica(
            worker_id=member.id,
            state=REPLICA_STATES[replica.state],
            running=replica.running,
            checkpoint=replica.digest,
        )
        for member in facts.of_kind(Kind.WORKER)
        if member.worker
        for replica in member.worker.replicas_of(entry.name)
    ]
    tiers = [m.store.tier_of(entry.checkpoint.digest) for m in facts.of_kind(Kind.STORE) if m.store]
    nearest = max((tier for tier in tiers if tier), key=NEARNESS.__getitem__, default=None)
    return pb.Model(
        name=entry.name,
        spec=_spec(entry),
        state=_state(replicas),
        etag=str(entry.revision),
        checkpoint=checkpoint_to(entry.checkpoint, entry.source),
        replicas=replicas,
        nearest_tier=TIERS[nearest] if nearest else inference_pb2.TIER_UNSPECIFIED,
        create_time=_timestamp(entry.created_s),
        update_time=_timestamp(entry.updated_s),
        previous_checkpoint=entry.previous.digest if entry.previous else "",
    )


def member_of(member: Member, *, draining: bool = False) -> pb.Member:
    """One process of the cluster."""
    return pb.Member(
        kind=member.kind,
        id=member.id,
        node=member.node,
        address=member.address,
        fence=member.fence,
        worker=_worker(member.worker) if member.worker else None,
        store=_store(member.store) if member.store else None,
        draining=draining,
    )


def _spec(entry: ModelEntry) -> pb.ModelSpec:
    keep_alive = None if entry.keep_alive_s is None else duration(entry.keep_alive_s)
    return pb.ModelSpec(
        checkpoint=entry.checkpoint.digest,
        source=entry.source,
        keep_alive=keep_alive,
        numerics=numerics_to(entry.numerics),
        base=entry.checkpoint.base,
        min_replicas=entry.min_replicas,
        max_replicas=entry.max_replicas,
        target_concurrency=entry.target_concurrency,
    )


def _state(replicas: list[pb.ModelReplica]) -> pb.ModelState.ValueType:
    states = {replica.state for replica in replicas}
    if pb.REPLICA_STATE_READY in states:
        return pb.MODEL_STATE_READY
    return pb.MODEL_STATE_LOADING if pb.REPLICA_STATE_LOADING in states else pb.MODEL_STATE_COLD


def _worker(worker: WorkerFacts) -> pb.WorkerStatus:
    return pb.WorkerStatus(
        device=worker.device,
        memory_bytes=worker.memory_bytes,
        memory_used_bytes=worker.memory_used_bytes,
        replicas=[_replica(replica) for replica in worker.replicas],
    )


def _replica(replica: ReplicaFacts) -> pb.WorkerReplica:
    return pb.WorkerReplica(
        model=replica.model,
        checkpoint=replica.digest,
        state=REPLICA_STATES[replica.state],
        running=replica.running,
        waiting=replica.waiting,
        bytes=replica.bytes,
        numerics=NUMERICS[replica.numerics],
        numerics_fingerprint=replica.fingerprint,
        base=replica.base,
        beside=replica.beside,
        runner=runner_to(replica.runner),
    )


def _store(store: StoreFacts) -> pb.StoreStatus:
    return pb.StoreStatus(
        disk_used_bytes=store.disk_used_bytes,
        dram_capacity_bytes=store.dram_capacity_bytes,
        dram_used_bytes=store.dram_used_bytes,
        checkpoints=[_stored(held) for held in store.checkpoints],
        disk_capacity_bytes=store.disk_capacity_bytes,
        corrupt_units=store.corrupt_units,
    )


def _stored(held: CheckpointFacts) -> pb.StoredCheckpoint:
    return pb.StoredCheckpoint(
        checkpoint=held.digest,
        bytes=held.bytes,
        tier=TIERS[held.tier],
        disk_bytes=held.disk_bytes,
        dram_bytes=held.dram_bytes,
    )


def _timestamp(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message
