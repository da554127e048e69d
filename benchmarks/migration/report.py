"""What the benchmark says: lines for people, and figures for machines."""

import json
import math
import statistics
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.migration.gap import Gaps, Moved
from benchmarks.migration.others import OthersFigures
from benchmarks.migration.predicted import predicted_tokens
from benchmarks.migration.stream import StreamFigures
from benchmarks.report import row, say
from benchmarks.series import Series


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None: left out."""

    kv_bytes_per_token: int = 0
    sent: Gaps | None = None
    computed: Gaps | None = None
    stopped: Gaps | None = None
    stream: StreamFigures | None = None
    others: OthersFigures | None = None

    def json(self) -> str:
        """One object: the figures that count, and what they come from."""
        figures: dict[str, float] = {}
        for name, gaps in (("", self.sent), ("tokens_", self.computed), ("stop_and_copy_", self.stopped)):
            if gaps:
                figures[f"{name}gap_steps_p99"] = gaps.steps_p99()
                figures |= {f"{name}gap_steps_{n}": _steps(moves).median for n, moves in gaps.moves.items()}
        if self.stream:
            figures |= {"kv_stream_vs_tcp": self.stream.ratio.median, "kv_stream_gb_per_s": self.stream.ours.median}
        if self.others:
            figures["others_slowdown"] = self.others.slowdown.median
        if self.sent and self.computed:
            figures["crossover_tokens"] = crossover(self.sent, self.computed)
            seen = [*self.sent.all(), *self.computed.all()]
            figures["crossover_tokens_predicted"] = predicted_tokens(seen, self.kv_bytes_per_token)
        return json.dumps({name: round(value, 4) for name, value in figures.items() if math.isfinite(value)})


def say_figures(figures: Figures) -> None:
    """Every part that was measured."""
    _say_gaps("KV is sent while the answer goes on", figures.sent)
    _say_gaps("KV is computed at the target while the answer goes on", figures.computed)
    _say_gaps("the answer stops, then KV is sent", figures.stopped)
    if figures.sent and figures.computed:
        predicted = predicted_tokens([*figures.sent.all(), *figures.computed.all()], figures.kv_bytes_per_token)
        _say_crossover(crossover(figures.sent, figures.computed), predicted)
    if figures.stream:
        _say_stream(figures.stream)
    if figures.others:
        _say_others(figures.others)


def crossover(sent: Gaps, computed: Gaps) -> float:
    """The prompt, in tokens, from which sending is done sooner than computing, on a straight line between the two
    contexts around it; before the first one, on that through the first two. Infinity if it never is."""
    both = [context for context in sent.moves if context in computed.moves]
    points = [(_prompt_tokens(sent.moves[context]), _ahead_s(sent, computed, context)) for context in both]
    for (low, before_s), (high, after_s) in pairwise(points):
        if after_s >= 0 and after_s > before_s:
            return max(0.0, low + (high - low) * -before_s / (after_s - before_s))
    return math.inf


def _prompt_tokens(moves: tuple[Moved, ...]) -> float:
    return statistics.median(one.prompt_tokens for one in moves)


def _ahead_s(sent: Gaps, computed: Gaps, context: int) -> float:
    """By how much sending is done before computing."""
    return _took(computed.moves[context]).median - _took(sent.moves[context]).median


def _say_gaps(name: str, gaps: Gaps | None) -> None:
    if gaps is None:
        return
    say(f"\nThe longest time between two tokens, over the usual one before; {name}:")
    for context, moves in gaps.moves.items():
        usual = Series.of(one.step_s * 1e3 for one in moves)
        exact = sum(one.exact for one in moves)
        row(
            f"about {context} tokens of prompt", _steps(moves), "steps",
            f"a step {usual.median:.1f} ms, done after {_took(moves).text('s')}, exact {exact} of {len(moves)}",
        )  # fmt: skip
    say(f"  P99 of all {len(gaps.all())}: {gaps.steps_p99():.2f} steps")


def _say_crossover(measured: float, predicted: float) -> None:
    say(
        f"\nSending is done sooner than computing from {measured:.0f} tokens on;"
        f" by the rates that the policy learns of these moves from {predicted:.0f} on"
    )


def _say_stream(figures: StreamFigures) -> None:
    say(f"\nThe stream of {figures.megabytes:.0f} MB of KV from worker to worker:")
    row("KV, checked and written", figures.ours, "GB/s")
    row("plain TCP, the same bytes", figures.tcp, "GB/s")
    row("ratio", figures.ratio, "")


def _say_others(figures: OthersFigures) -> None:
    say(f"\nOther answers of the source, while one of about {figures.context} tokens is sent:")
    row("before", figures.quiet, "tokens/s")
    row("meanwhile", figures.moving, "tokens/s")
    row("slowdown", figures.slowdown, "")


def _steps(moves: tuple[Moved, ...]) -> Series:
    return Series.of(one.steps for one in moves)


def _took(moves: tuple[Moved, ...]) -> Series:
    return Series.of(one.took_s for one in moves)
