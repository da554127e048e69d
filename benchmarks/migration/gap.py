"""The longest silence that a client notices when its answer moves, in steps of that answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.migration.stage import Stage
from benchmarks.report import say
from mesh.requests import MoveKind

BEFORE, AFTER = 24, 16  # tokens around a move


@dataclass(frozen=True, slots=True)
class Moved:
    """One move, as the client of its request saw it."""

    kind: MoveKind | None
    prompt_tokens: int
    tokens: int  # of prompt and answer, when it had ended
    bytes_sent: int
    step_s: float  # usual, before it
    gap_s: float  # the longest, from its beginning on
    transfer_s: float  # from its beginning until the target had all but what came meanwhile
    took_s: float  # until the target owned the request
    exact: bool

    @property
    def steps(self) -> float:
        """The gap in usual steps."""
        return self.gap_s / self.step_s


@dataclass(frozen=True, slots=True)
class Gaps:
    """By context, in tokens, all moves of one way."""

    moves: Mapping[int, tuple[Moved, ...]]

    def all(self) -> tuple[Moved, ...]:
        """Of every context."""
        return tuple(one for moves in self.moves.values() for one in moves)

    def steps_p99(self) -> float:
        """The gap in steps, below which 99 of 100 moves are; with fewer moves, the longest."""
        ordered = sorted(one.steps for one in self.all())
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


async def measure_gaps(stage: Stage, name: str, kind: MoveKind) -> Gaps:
    """One move a request, in a round for each context in turn."""
    moves: dict[int, list[Moved]] = {context: [] for context in stage.sizes.contexts}
    say(f"moves: {name}")
    for number in range(stage.sizes.rounds):
        say(f"  round {number + 1} of {stage.sizes.rounds}")
        for context in stage.sizes.contexts:
            moves[context].append(await measure_move(stage, context, kind))
    return Gaps({context: tuple(ones) for context, ones in moves.items()})


async def measure_move(stage: Stage, context: int, kind: MoveKind) -> Moved:
    """A request of its own, from its first token until it goes on elsewhere."""
    async with stage.asked(context) as watched:
        await watched.until(BEFORE)
        began = len(watched.times_s)
        outcome = await stage.move(watched, kind)
        answered = len(watched.times_s)
        await watched.more(AFTER)
        assert watched.started
        return Moved(
            kind=outcome.kind,
            prompt_tokens=watched.started.prompt_tokens,
            tokens=watched.started.prompt_tokens + answered,
            bytes_sent=outcome.bytes_sent,
            step_s=watched.step_s(4, began),  # the first ones are those of a batch that changes
            gap_s=watched.longest_s(began - 1),
            transfer_s=outcome.transfer_s,
            took_s=outcome.took_s,
            exact=outcome.exact,
        )
