"""The gateway's own messages, to and from gateway_records."""

from google.protobuf.duration_pb2 import Duration
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2

from mesh.clients.gateway_records import (
    AnswerEnd,
    AnswerEvent,
    Change,
    ChatMessage,
    Delta,
    DrainLeft,
    Embedded,
    EmbedEvent,
    Finished,
    MemberChange,
    MemberStatus,
    Model,
    ModelChange,
    ModelReplica,
    ModelState,
    MoveOutcome,
    Prefetching,
    SamplingWishes,
    Started,
    Tool,
    Vectors,
    WorkerStatus,
)
from mesh.clients.move_wire import answer_move_from, move_kind_from
from mesh.clients.sampling_wire import biases_to, guide_to, logprob_from
from mesh.clients.wire import (
    checkpoint_from,
    duration,
    import_progress_from,
    load_progress_from,
    numerics_from,
    progress_from,
    runner_from,
    seconds,
    start_kind_from,
    start_times_from,
    tier_from,
)
from mesh.facts import CheckpointFacts, CheckpointSummary, Kind, NumericsLevel, ReplicaFacts, ReplicaState, StoreFacts
from mesh.requests import FinishReason, ImportProgress, Pooling, RequestState

POOLINGS = {Pooling.MEAN: pb.POOLING_MEAN, Pooling.LAST: pb.POOLING_LAST, Pooling.CLS: pb.POOLING_CLS}
REPLICA_STATES = {
    pb.REPLICA_STATE_LOADING: ReplicaState.LOADING,
    pb.REPLICA_STATE_READY: ReplicaState.READY,
    pb.REPLICA_STATE_DRAINING: ReplicaState.DRAINING,
}
FINISH_REASONS = {
    inference_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    inference_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    inference_pb2.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
}
MODEL_STATES = {pb.MODEL_STATE_LOADING: ModelState.LOADING, pb.MODEL_STATE_READY: ModelState.READY}
CHANGES = {
    pb.EVENT_TYPE_EXISTING: Change.EXISTING,
    pb.EVENT_TYPE_BOOKMARK: Change.BOOKMARK,
    pb.EVENT_TYPE_DELETED: Change.DELETED,
}


def duration_or_none(length_s: float | None) -> Duration | None:
    """Seconds as a Duration; None stays unset."""
    return None if length_s is None else duration(length_s)


def sampling_to(wishes: SamplingWishes) -> inference_pb2.SamplingParams:
    """To the wire."""
    return inference_pb2.SamplingParams(
        max_tokens=wishes.max_tokens,
        temperature=wishes.temperature,
        top_k=wishes.top_k,
        top_p=wishes.top_p,
        min_p=wishes.min_p,
        repetition_penalty=wishes.repetition_penalty,
        presence_penalty=wishes.presence_penalty,
        frequency_penalty=wishes.frequency_penalty,
        seed=wishes.seed,
        stop=wishes.stop,
        stop_token_ids=wishes.stop_token_ids,
        ignore_eos=wishes.ignore_eos,
        logit_bias=biases_to(wishes.logit_bias),
        top_logprobs=wishes.top_logprobs,
        guide=guide_to(wishes.guide),
    )


def message_to(message: ChatMessage) -> pb.ChatMessage:
    """To the wire."""
    return pb.ChatMessage(
        role=message.role,
        content=message.content,
        reasoning=message.reasoning,
        tool_calls=[pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in message.tool_calls],
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def tool_to(tool: Tool) -> pb.Tool:
    """To the wire."""
    return pb.Tool(name=tool.name, description=tool.description, parameters=tool.parameters)


def answer_from(message: pb.GenerateResponse | pb.ChatResponse) -> AnswerEvent:
    """From the wire."""
    match message.WhichOneof("event"):
        case "delta":
            return _delta_from(message.delta)
        case "started":
            return _started_from(message.started)
        case "finished":
            return _finished_from(message.finished)
        case _:
            return progress_from(message.progress)


def embed_from(message: pb.EmbedResponse) -> EmbedEvent:
    """From the wire."""
    match message.WhichOneof("event"):
        case "embeddings":
            found = message.embeddings
            return Vectors(found.first, tuple(tuple(one.values) for one in found.embeddings))
        case "embedded":
            end = message.embedded
            return Embedded(
                end.prompt_tokens,
                end.worker_id,
                start_kind_from(end.start_kind),
                start_times_from(end.times),
                seconds(end.total),
                end.checkpoint,
            )
        case _:
            return progress_from(message.progress)


def _started_from(message: pb.Started) -> Started:
    return Started(
        message.request_id,
        message.worker_id,
        start_kind_from(message.start_kind),
        start_times_from(message.times),
        message.prompt_tokens,
        message.checkpoint,
    )


def _finished_from(message: pb.Finished) -> Finished:
    return Finished(
        reason=FINISH_REASONS.get(message.finish_reason, FinishReason.ERROR),
        prompt_tokens=message.usage.prompt_tokens,
        completion_tokens=message.usage.completion_tokens,
        start_kind=start_kind_from(message.start_kind),
        times=start_times_from(message.times),
        time_to_first_token_s=seconds(message.time_to_first_token),
        total_s=seconds(message.total),
        worker_id=message.worker_id,
        stop_text=message.stop_text,
        checkpoint=message.checkpoint,
        answers=tuple(_end_from(answer) for answer in message.answers),
        moves=tuple(answer_move_from(move) for move in message.moves),
    )


def _end_from(message: pb.AnswerEnd) -> AnswerEnd:
    reason = FINISH_REASONS.get(message.finish_reason, FinishReason.ERROR)
    return AnswerEnd(reason, message.stop_text, message.completion_tokens)


def _delta_from(message: pb.Delta) -> Delta:
    likely = tuple(logprob_from(one) for one in message.logprobs)
    return Delta(message.text, tuple(message.token_ids), message.seq, message.index, likely)


def _replica_state_from(number: pb.ReplicaState.ValueType) -> ReplicaState:
    return REPLICA_STATES.get(number, ReplicaState.LOADING)


def model_from(message: pb.Model) -> Model:
    """From the wire."""
    spec = message.spec
    return Model(
        name=message.name,
        checkpoint=checkpoint_from(message.checkpoint),
        source=spec.source or message.checkpoint.source,
        keep_alive_s=seconds(spec.keep_alive) if spec.HasField("keep_alive") else None,
        state=MODEL_STATES.get(message.state, ModelState.COLD),
        etag=message.etag,
        replicas=tuple(_model_replica_from(replica) for replica in message.replicas),
        nearest_tier=tier_from(message.nearest_tier) if message.nearest_tier else None,
        previous_checkpoint=message.previous_checkpoint,
        numerics=numerics_from(spec.numerics),
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        target_concurrency=spec.target_concurrency,
    )


def _model_replica_from(message: pb.ModelReplica) -> ModelReplica:
    return ModelReplica(message.worker_id, _replica_state_from(message.state), message.running, message.checkpoint)


def member_from(message: pb.Member) -> MemberStatus:
    """From the wire."""
    return MemberStatus(
        kind=Kind(message.kind),
        id=message.id,
        node=message.node,
        address=message.address,
        fence=message.fence,
        worker=_worker_from(message.worker) if message.HasField("worker") else None,
        store=_store_from(message.store) if message.HasField("store") else None,
        draining=message.draining,
    )


def drain_from(message: pb.ClusterServiceDrainResponse) -> DrainLeft:
    """From the wire."""
    return DrainLeft(message.replicas, message.requests, tuple(message.only_here))


def _worker_from(message: pb.WorkerStatus) -> WorkerStatus:
    replicas = (
        ReplicaFacts(
            model=r.model,
            digest=r.checkpoint,
            state=_replica_state_from(r.state),
            bytes=r.bytes,
            running=r.running,
            waiting=r.waiting,
            numerics=numerics_from(r.numerics) or NumericsLevel.FAST,
            fingerprint=r.numerics_fingerprint,
            base=r.base,
            beside=r.beside,
            runner=runner_from(r.runner),
        )
        for r in message.replicas
    )
    return WorkerStatus(message.device, message.memory_bytes, message.memory_used_bytes, tuple(replicas))


def _store_from(message: pb.StoreStatus) -> StoreFacts:
    checkpoints = (
        CheckpointFacts(c.checkpoint, c.bytes, tier_from(c.tier), c.disk_bytes, c.dram_bytes)
        for c in message.checkpoints
    )
    return StoreFacts(
        disk_used_bytes=message.disk_used_bytes,
        dram_capacity_bytes=message.dram_capacity_bytes,
        dram_used_bytes=message.dram_used_bytes,
        checkpoints=tuple(checkpoints),
        disk_capacity_bytes=message.disk_capacity_bytes,
        corrupt_units=message.corrupt_units,
    )


def import_from(message: pb.ModelServiceImportResponse) -> ImportProgress | CheckpointSummary:
    """From the wire."""
    if message.WhichOneof("event") == "checkpoint":
        return checkpoint_from(message.checkpoint)
    return import_progress_from(message.progress)


def deploy_from(message: pb.ModelServiceDeployResponse) -> ImportProgress | Model:
    """From the wire."""
    if message.WhichOneof("event") == "model":
        return model_from(message.model)
    return import_progress_from(message.progress)


def move_from(message: pb.ClusterServiceMoveResponse) -> MoveOutcome:
    """From the wire."""
    return MoveOutcome(
        from_worker_id=message.from_worker_id,
        to_worker_id=message.to_worker_id,
        kind=move_kind_from(message.kind),
        exact=message.exact,
        gap_s=seconds(message.gap),
        took_s=seconds(message.took),
        transfer_s=seconds(message.transfer),
        bytes_sent=message.bytes_sent,
    )


def request_from(message: pb.RunningRequest) -> RequestState:
    """From the wire."""
    return RequestState(
        request_id=message.request_id,
        model=message.model,
        worker_id=message.worker_id,
        age_s=seconds(message.age),
        tenant=message.tenant,
        to_worker_id=message.to_worker_id,
    )


def prefetching_from(message: pb.ModelServicePrefetchResponse) -> Prefetching:
    """From the wire."""
    return Prefetching(message.store_id, load_progress_from(message.progress))


def model_change_from(message: pb.ModelServiceWatchResponse) -> ModelChange:
    """From the wire; a change that we do not know is an update."""
    model = model_from(message.model) if message.HasField("model") else None
    return ModelChange(CHANGES.get(message.type, Change.UPDATED), model)


def member_change_from(message: pb.ClusterServiceWatchResponse) -> MemberChange:
    """From the wire; a change that we do not know is an update."""
    member = member_from(message.member) if message.HasField("member") else None
    return MemberChange(CHANGES.get(message.type, Change.UPDATED), member)
