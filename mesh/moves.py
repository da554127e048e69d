"""A running request on its way from one worker to another: what gateway, workers and scheduler say of it. Pure."""

from dataclasses import dataclass

from mesh.requests import Grant, MoveKind, Placement

SOURCE_ENDED = "SOURCE_ENDED"  # a target's reason: nothing more comes. Why, only the source knows


@dataclass(frozen=True, slots=True)
class Expect:
    """To the target: make room for a request that another worker owns, and get ready to go on with it. Said again with
    more tokens where KV is computed."""

    move_id: str
    request: Grant  # as its owner was granted it, with the tokens accepted since
    kind: MoveKind


@dataclass(frozen=True, slots=True)
class Send:
    """To the source: send the request's KV to the target while it goes on, and stop when little is left."""

    move_id: str
    key: str
    epoch: int  # one of an older epoch than the running one is ignored
    target_address: str
    blocks_there: int  # leading blocks that the target has


@dataclass(frozen=True, slots=True)
class Abandon:
    """To either end: the move is over. What runs, runs on; what has stopped for it waits for a grant."""

    move_id: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """From the target: there is room, and so much is there already. `fingerprint` is its replica's numerics."""

    move_id: str
    blocks_there: int
    tokens_there: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """From the source: the request stands still there, after `tokens` of its answer, until it is granted again."""

    move_id: str
    tokens: int
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From the target: it has what was sent, or was to be computed: KV of the leading `tokens` of prompt and answer."""

    move_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """From either end: it gives up. On the source the request runs on, unless it had stopped."""

    move_id: str
    reason: str  # an ErrorInfo reason
    message: str


MoveEvent = Reserved | Stopped | Ready | MoveFailed


@dataclass(frozen=True, slots=True)
class Relocation:
    """From the scheduler: a request is to go on at `target`, where a slot is held for it."""

    move_id: str
    target: Placement
    reason: str
    kind: MoveKind | None  # None: whichever is quicker


@dataclass(frozen=True, slots=True)
class AnswerMove:
    """A running answer went on at another worker, after `tokens` of its own. With `exact`, what came then is, bit for
    bit, what would have come without it."""

    index: int  # which of the request's answers
    from_worker_id: str
    to_worker_id: str
    reason: str
    kind: MoveKind
    tokens: int
    exact: bool
    gap_s: float  # from the last token before it to the first one after it


@dataclass(frozen=True, slots=True)
class Moved:
    """How a relocation ended. With a failure, the request is where it was, or has found its own place since."""

    move_id: str
    kind: MoveKind | None = None  # how it was done, at last
    tokens: int = 0  # of prompt and answer, when it ended
    tokens_there: int = 0  # leading ones that the target had before
    bytes_sent: int = 0
    transfer_s: float = 0.0  # until the target had all but what came meanwhile
    took_s: float = 0.0  # until the target was granted
    gap_s: float = 0.0  # from the last token before it to the first one after it
    exact: bool = False
    failure_reason: str = ""
    failure: str = ""

    @property
    def moved(self) -> bool:
        """Whether the request goes on at the target."""
        return not self.failure_reason


@dataclass(frozen=True, slots=True)
class Relocated:
    """A request that somebody asked for goes on elsewhere."""

    from_worker_id: str
    to_worker_id: str
    outcome: Moved
