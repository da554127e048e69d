"""Engines raced round by round: the same prompts, one engine after the other, who begins changing every round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.child import Child
from benchmarks.engine.batch import BATCH, OUTCOME, Batch, Outcome
from benchmarks.series import BenchmarkBroken, Series

PROVEN_TOKENS = 4  # of each answer, in full precision, which engines must have alike
PROVEN_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Result:
    """One engine, a value a round."""

    key: str
    label: str
    tokens_per_s: Series
    tokens_per_cpu_s: Series
    ttft_s: Series


@dataclass(frozen=True, slots=True)
class Entrant:
    """An engine that is ready."""

    key: str
    label: str
    process: Child


async def asked(entrant: Entrant, batch: Batch) -> Outcome:
    """Its answers; BenchmarkBroken when there are not as many tokens as were asked for."""
    outcome = OUTCOME.validate_json(await entrant.process.ask(BATCH.dump_json(batch).decode()))
    lengths = {len(answer) for answer in outcome.answers}
    if lengths != {batch.tokens}:
        raise BenchmarkBroken(f"{entrant.label} gave answers of {lengths} tokens instead of {batch.tokens}")
    return outcome


async def race(
    entrants: Sequence[Entrant], draw: Callable[[], Batch], rounds: int, *, proves: bool
) -> dict[str, Result]:
    """Results by key, after a round that does not count. With `proves` all must begin their answers alike."""
    found: dict[str, list[Outcome]] = {entrant.key: [] for entrant in entrants}
    for number in range(1 + rounds):
        batch, first = draw(), number % len(entrants)
        outcomes = {one.key: await asked(one, batch) for one in (*entrants[first:], *entrants[:first])}
        if proves:
            _prove(entrants, outcomes)
        if number:
            for key, outcome in outcomes.items():
                found[key].append(outcome)
    return {entrant.key: _result(entrant, found[entrant.key]) for entrant in entrants}


def _result(entrant: Entrant, outcomes: Sequence[Outcome]) -> Result:
    return Result(
        entrant.key,
        entrant.label,
        Series.of(outcome.tokens_per_s for outcome in outcomes),
        Series.of(outcome.tokens_per_cpu_s for outcome in outcomes),
        Series.of(outcome.ttft_s for outcome in outcomes),
    )


def _prove(entrants: Sequence[Entrant], outcomes: Mapping[str, Outcome]) -> None:
    """Raises BenchmarkBroken for an engine whose answers are not those of the first: it runs another model."""
    ours = outcomes[entrants[0].key].answers
    for entrant in entrants[1:]:
        theirs = outcomes[entrant.key].answers
        alike = [a[:PROVEN_TOKENS] == b[:PROVEN_TOKENS] for a, b in zip(ours, theirs, strict=True)]
        if sum(alike) < PROVEN_SHARE * len(alike):
            raise BenchmarkBroken(
                f"{entrant.label} and {entrants[0].label} begin only {sum(alike)} of {len(alike)} answers alike"
            )
