"""What is said of moves: the slowest of many, and where one way overtakes the other."""

import json
import math
from dataclasses import replace

import pytest

from benchmarks.migration.gap import Gaps, Moved
from benchmarks.migration.others import OthersFigures
from benchmarks.migration.predicted import predicted_tokens
from benchmarks.migration.report import Figures, crossover
from benchmarks.migration.stream import StreamFigures
from benchmarks.series import Series
from mesh.requests import MoveKind

KV_BYTES = 24_576  # of a token


def moved(prompt_tokens: int, took_s: float, steps: float = 1.0) -> Moved:
    """One move, of steps of 10 ms."""
    return Moved(
        MoveKind.KV,
        prompt_tokens,
        prompt_tokens,
        bytes_sent=prompt_tokens * KV_BYTES,
        step_s=0.01,
        gap_s=0.01 * steps,
        transfer_s=took_s,
        took_s=took_s,
        exact=True,
    )


def gaps(*took_s: float) -> Gaps:
    """Of prompts of 100, 200, ... tokens."""
    return Gaps({100 * n: (moved(100 * n, took),) for n, took in enumerate(took_s, 1)})


def test_the_gap_is_that_of_the_slowest_but_one_in_a_hundred() -> None:
    many = tuple(moved(100, 1.0, steps) for steps in range(1, 201))
    assert Gaps({100: many}).steps_p99() == pytest.approx(199)
    assert Gaps({100: many[:2], 200: many[5:6]}).steps_p99() == pytest.approx(6)


@pytest.mark.parametrize(
    ("sent", "computed", "where"),
    [
        ((2.0, 2.0), (1.0, 3.0), 150.0),
        ((2.0, 2.0, 2.0), (1.0, 1.5, 2.0), 300.0),
        ((1.0, 1.0), (1.5, 2.5), 50.0),
        ((1.0, 1.0), (3.0, 3.5), 0.0),
        ((2.0, 3.0), (1.0, 1.0), math.inf),
    ],
)
def test_sending_overtakes_computing_on_the_line_through_two_contexts(
    sent: tuple[float, ...], computed: tuple[float, ...], where: float
) -> None:
    assert crossover(gaps(*sent), gaps(*computed)) == where


def test_the_policy_foresees_what_it_has_seen_of_both_ways() -> None:
    contexts = [100, 1000, 4000, 8000] * 10
    sent = [moved(n, 0.1 + n * KV_BYTES * 1e-9) for n in contexts]
    computed = [replace(moved(n, 0.05 + n * 1e-3), kind=MoveKind.TOKENS) for n in contexts]
    met = 0.05 / (1e-3 - KV_BYTES * 1e-9)
    assert predicted_tokens([*sent, *computed], KV_BYTES) == pytest.approx(met, rel=0.25)


def test_the_figures_that_count_have_their_names() -> None:
    one, two = Series.of([1.0]), Series.of([2.0])
    figures = Figures(
        sent=gaps(1.0), stream=StreamFigures(one, two, 100.0), others=OthersFigures(quiet=two, moving=one, context=8000)
    )
    said = json.loads(figures.json())
    assert (said["gap_steps_p99"], said["kv_stream_vs_tcp"], said["others_slowdown"]) == (1.0, 0.5, 0.5)
    assert "tokens_gap_steps_p99" not in said  # what was not measured is left out
