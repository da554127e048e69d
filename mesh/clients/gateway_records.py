"""What a gateway's client asks and is told, in records. Their wire forms are in gateway_wire."""

from dataclasses import dataclass
from enum import StrEnum

from mesh.facts import CheckpointSummary, Kind, NumericsLevel, ReplicaFacts, ReplicaState, StoreFacts, Tier
from mesh.moves import AnswerMove
from mesh.requests import (
    FinishReason,
    Guide,
    LoadProgress,
    MoveKind,
    Progress,
    StartKind,
    StartTimes,
    TokenBias,
    TokenLogprob,
)


class ModelState(StrEnum):
    """Whether a model has a replica."""

    COLD = "cold"
    LOADING = "loading"
    READY = "ready"


class Change(StrEnum):
    """What a watch reports; a bookmark ends the things that were there already, and carries none."""

    EXISTING = "existing"
    BOOKMARK = "bookmark"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class SamplingWishes:
    """What the asker says of sampling; None leaves it to the model."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: tuple[TokenBias, ...] = ()
    top_logprobs: int | None = None  # None: no likelihoods at all
    guide: Guide | None = None


MODELS_CHOICE = SamplingWishes()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that an assistant called; `arguments` is a JSON object, as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; `role` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema, as text."""

    name: str
    description: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of the inputs from `first` on."""

    first: int
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """All inputs have their vectors."""

    prompt_tokens: int
    worker_id: str
    start_kind: StartKind
    times: StartTimes
    total_s: float
    checkpoint: str


EmbedEvent = Progress | Vectors | Embedded


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has taken the request."""

    request_id: str
    worker_id: str
    start_kind: StartKind
    times: StartTimes
    prompt_tokens: int
    checkpoint: str  # digest of the version that answers


@dataclass(frozen=True, slots=True)
class Delta:
    """New text; `seq` is the index of the first of `token_ids` in the answer, `index` which answer it is."""

    text: str
    token_ids: tuple[int, ...]
    seq: int
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each of `token_ids`, when asked for


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """A running request goes on at another worker."""

    from_worker_id: str
    to_worker_id: str
    kind: MoveKind | None
    exact: bool  # what comes after is, bit for bit, what would have come without the move
    gap_s: float  # from the last token before it to the first one after it
    took_s: float  # from its beginning until the target owned the request
    transfer_s: float  # from its beginning until the target had all but what came meanwhile
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How one of several answers ended."""

    reason: FinishReason
    stop_text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """How the answer ended and what it took; both times count from the request's arrival. Of several answers, the
    reason and the stop text are the first one's, the tokens those of all."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    start_kind: StartKind
    times: StartTimes
    time_to_first_token_s: float
    total_s: float
    worker_id: str
    stop_text: str
    checkpoint: str  # digest of the version that answered
    answers: tuple[AnswerEnd, ...] = ()  # how each ended, in order
    moves: tuple[AnswerMove, ...] = ()  # the workers that they went on at

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed, the first token left out; None when there is no second."""
        decode_s = self.total_s - self.time_to_first_token_s
        if self.completion_tokens < 2 or decode_s <= 0:
            return None
        return (self.completion_tokens - 1) / decode_s


AnswerEvent = Progress | Started | Delta | Finished


@dataclass(frozen=True, slots=True)
class ModelReplica:
    """One version of a model on a worker."""

    worker_id: str
    state: ReplicaState
    running: int
    checkpoint: str  # its digest


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked; `nearest_tier` holds its whole checkpoint (None: no live store does)."""

    name: str
    checkpoint: CheckpointSummary
    source: str
    keep_alive_s: float | None  # None: the cluster's default
    state: ModelState
    etag: str
    replicas: tuple[ModelReplica, ...]
    nearest_tier: Tier | None
    previous_checkpoint: str  # digest; empty when there is nothing to roll back to
    numerics: NumericsLevel | None = None  # None: each worker's default
    min_replicas: int = 0
    max_replicas: int = 0  # 0: as many as there are workers
    target_concurrency: int = 0  # requests at a replica; 0: its slots


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One message of a watch on models."""

    change: Change
    model: Model | None


@dataclass(frozen=True, slots=True)
class Prefetching:
    """How far a prefetch has come, and to which store."""

    store_id: str
    progress: LoadProgress


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker has."""

    device: str
    memory_bytes: int
    memory_used_bytes: int
    replicas: tuple[ReplicaFacts, ...]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A live process of the cluster, as its gateway shows it."""

    kind: Kind
    id: str
    node: str
    address: str
    fence: int
    worker: WorkerStatus | None
    store: StoreFacts | None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class DrainLeft:
    """What a drain has still to wait for; `only_here` are models that cannot be loaded without the node's store."""

    replicas: int
    requests: int
    only_here: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One message of a watch on the cluster."""

    change: Change
    member: MemberStatus | None
