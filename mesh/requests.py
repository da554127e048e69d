"""A request's life, in records: what was asked, how far it has come, where it runs. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum

from mesh.facts import Priority, Tier


class Phase(StrEnum):
    """The phases before the first token."""

    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"


class StartKind(StrEnum):
    """What had to happen before the model could answer."""

    WARM = "warm"
    DRAM = "dram"
    DISK = "disk"
    ORIGIN = "origin"


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class MoveKind(StrEnum):
    """How what is known of a running request comes to the worker that is to go on with it."""

    KV = "kv"  # copied
    TOKENS = "tokens"  # computed there, while it goes on where it was
    REBUILT = "rebuilt"  # computed there, its former worker being lost


class Pooling(StrEnum):
    """Which vectors of a text's tokens make the text's."""

    MEAN = "mean"
    LAST = "last"
    CLS = "cls"  # the first


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load has come; `tier` is where the bytes come from."""

    tier: Tier
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a request waits: its place in the queue, or the load it waits for."""

    phase: Phase
    position: int = 0
    load: LoadProgress | None = None


@dataclass(frozen=True, slots=True)
class StartTimes:
    """How long a request waited, and for what."""

    queue_s: float
    load_s: float


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """How a request is treated beside others. `first_token_s`, after its arrival, is the latest that will do."""

    tenant: str = ""
    priority: Priority = Priority.NORMAL
    first_token_s: float | None = None

    def after(self, passed_s: float) -> "ServiceClass":
        """What is left to ask for when so much time has passed."""
        if self.first_token_s is None:
            return self
        return replace(self, first_token_s=max(0.0, self.first_token_s - passed_s))


PLAIN = ServiceClass()


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for a place. `excluded` are workers that just failed it, by the fences of their leases."""

    request_id: str
    model: str
    excluded: frozenset[int] = frozenset()
    current_only: bool = False  # no former version of the model will do
    service: ServiceClass = PLAIN
    prompt_tokens: int = 0  # to compute before the first one
    waited_s: float = 0.0  # already, at a scheduler that is gone
    digest: str = ""  # only a replica of this version will do: the answer has begun with it
    stays: bool = False  # it cannot go on elsewhere


@dataclass(frozen=True, slots=True)
class Placement:
    """A place on a worker; `fence` is of the worker's lease, `digest` the version of the model that answers there."""

    worker_id: str
    address: str
    fence: int
    digest: str
    start_kind: StartKind
    times: StartTimes


@dataclass(frozen=True, slots=True)
class HeldPlace:
    """A place that a running request holds, as its gateway tells a scheduler that did not give it. `fence` is of the
    worker's lease, `number` the gateway's own."""

    number: int
    worker_id: str
    fence: int
    model: str
    digest: str
    service: ServiceClass = ServiceClass()
    prompt_tokens: int = 0
    request_id: str = ""  # the client's
    stays: bool = False  # it cannot go on elsewhere


@dataclass(frozen=True, slots=True)
class RequestState:
    """A request, as the scheduler sees it; `worker_id` is empty while it waits, `to_worker_id` unless it moves."""

    request_id: str  # the client's
    model: str
    worker_id: str
    age_s: float
    tenant: str
    to_worker_id: str


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import has come; `phase` is "reading", "writing" or "publishing"."""

    phase: str
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class TokenBias:
    """What is added to one token's logit, from -100 to 100; -100 bans it."""

    token_id: int
    bias: float


class GuideKind(StrEnum):
    """What the text of a guide is."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    JSON_OBJECT = "json_object"


@dataclass(frozen=True, slots=True)
class Guide:
    """A shape that an answer keeps to. The text is the schema or the expression; a JSON object has none."""

    kind: GuideKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have come, and the natural logarithm of its probability."""

    token_id: int
    logprob: float
    text: str = ""  # by itself; only the gateway knows it


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, and the likeliest in its place, the likeliest first."""

    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, every default resolved. Stop texts stay at the gateway."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop_token_ids: tuple[int, ...]
    logit_bias: tuple[TokenBias, ...] = ()
    top_logprobs: int | None = None  # how many a token; None: not even its own
    guide: Guide | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Makes a worker the owner of a request under an epoch; `log` is what the gateway has accepted so far."""

    key: str
    epoch: int
    model: str
    digest: str  # the version that prompt and log were written for
    prompt: tuple[int, ...]
    log: tuple[int, ...]
    sampling: Sampling
    move_id: str = ""  # of the move that has brought here what is known of it


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends an ownership; one of an older epoch than the running one is ignored."""

    key: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Farewell:
    """A worker stops: it finishes what runs on a line, and wants nothing new on it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a worker says that a step gave one request. A frame with a failure ends its epoch."""

    key: str
    epoch: int
    seq: int = 0  # index in the answer of the first of `tokens`
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    failure_reason: str = ""  # an ErrorInfo reason
    failure: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each of `tokens`, when asked for
