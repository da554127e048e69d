"""All that the model of a moving request knows: one gateway, some workers, and what is on its way between them.

Records are NamedTuples, since a search hashes millions of them; each message carries its name, so that no two kinds
are equal. A token stands for where it was drawn: a worker and an epoch. So two owners never draw the same ones.
"""

from typing import NamedTuple

Tokens = tuple[int, ...]
NOBODY = -1
NO_MOVE = 0
FAULTS = ("break", "die", "freeze", "twice", "echo", "cut", "lapse", "leave", "crash")


class Rules(NamedTuple):
    """What keeps an answer whole. Each may be left out, to see that the search finds what it is there for."""

    fence: bool = True  # a frame counts under the current epoch only
    truncation: bool = True  # a grantee drops what does not continue the gateway's log
    replay: bool = True  # and says again what it has beyond it
    again: bool = True  # a source that was told to send is granted again when its move is given up: it may stand still
    new_epoch: bool = True  # under an epoch of its own
    release: bool = True  # the source is told when the target's first frame has counted


class Scope(NamedTuple):
    """What is looked at. `log` is what a client has already that comes back with it."""

    workers: int = 3
    length: int = 3  # tokens of the answer
    moves: int = 1
    faults: int = 1
    kinds: tuple[str, ...] = ("kv", "tokens", "whole")
    of: tuple[str, ...] = FAULTS
    queue: int = 2  # unheard words with which a worker still draws
    log: Tokens = ()
    rules: Rules = Rules()


class Granted(NamedTuple):
    """To a worker: own the request. `move` has brought what is there of it."""

    epoch: int
    log: Tokens
    move: int
    name: str = "grant"


class Cancelled(NamedTuple):
    """To a worker: it no longer owns what it owned under this epoch, or an older one."""

    epoch: int
    name: str = "cancel"


class Expected(NamedTuple):
    """To a target: make room."""

    move: int
    kind: str
    log: Tokens
    name: str = "expect"


class Sent(NamedTuple):
    """To a source: send what you have."""

    move: int
    epoch: int
    kind: str
    target: int
    name: str = "send"


class Abandoned(NamedTuple):
    """To either end: the move is over."""

    move: int
    name: str = "abandon"


class Said(NamedTuple):
    """From a worker: a frame. `tokens` are all of its answer's up to the frame's last, which began at `seq`."""

    epoch: int
    seq: int
    tokens: Tokens
    last: bool
    name: str = "frame"


class Told(NamedTuple):
    """From a worker: how a move goes: reserved, stopped, ready or failed."""

    move: int
    name: str


class Carried(NamedTuple):
    """From source to target: all that the source had when it was sent."""

    move: int
    target: int
    tokens: Tokens
    name: str = "manifest"


Command = Granted | Cancelled | Expected | Sent | Abandoned
News = Said | Told


class Run(NamedTuple):
    """A request on a worker. It ends with the `line` that it was granted on."""

    epoch: int
    line: int
    tokens: Tokens
    paused: bool = False
    sending: int = NO_MOVE
    kind: str = ""
    target: int = NOBODY


class Arrival(NamedTuple):
    """Room on a target, and what has come."""

    move: int
    line: int
    tokens: Tokens | None = None


class Worker(NamedTuple):
    """`life` is "well", "dead" (its streams break) or "frozen" (they do not)."""

    life: str = "well"
    run: Run | None = None
    arrival: Arrival | None = None


class Move(NamedTuple):
    """What the gateway knows of the move under way. `stage` is "expect", "send" or "granted"."""

    number: int
    kind: str  # "kv" stops the source, "whole" and "tokens" do not
    source: int  # NOBODY once it is lost
    target: int
    stage: str = "expect"
    stopped: bool = False


class Gateway(NamedTuple):
    """The sequencer."""

    epoch: int
    log: Tokens
    ended: bool
    owner: int
    lines: tuple[int, ...]  # a number that is never used again; 0: none
    move: Move | None = None


class World(NamedTuple):
    """A state. Queues are a worker's: `down` and `up` on the line that the gateway reads, `former` on the one that it
    has given up and the worker has not: that line's number, and what was still on its way down."""

    gateway: Gateway
    workers: tuple[Worker, ...]
    down: tuple[tuple[Command, ...], ...]
    up: tuple[tuple[News, ...], ...]
    former: tuple[tuple[int, tuple[Command, ...]] | None, ...]
    carried: tuple[Carried, ...] = ()
    echoes: tuple[tuple[int, News], ...] = ()  # words of a worker that will be heard once more, whenever that is
    lines_opened: int = 0
    moves: int = 0  # begun
    faults: int = 0  # had


def put(row: tuple, place: int, value: object) -> tuple:  # type: ignore[type-arg]
    """The row with another value at a place."""
    return (*row[:place], value, *row[place + 1 :])
