"""Rounds, and the proof that all run the same model; processes are played by a Python one of a few lines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.child import child
from benchmarks.engine.batch import Batch
from benchmarks.engine.race import Entrant, race
from benchmarks.engine.stage import batches
from benchmarks.series import BenchmarkBroken

HONEST = "tests.benchmarks.engine.echo"


@asynccontextmanager
async def entrant(key: str, shift: int = 0, tokens: int = 0) -> AsyncIterator[Entrant]:
    """Answers with the prompt's own tokens, `shift` added, `tokens` too few."""
    async with child(HONEST, [str(shift), str(tokens)]) as process:
        assert await process.answer() == "ready"
        yield Entrant(key, key, process)


async def test_everybody_is_asked_the_same_every_round_and_the_first_round_does_not_count() -> None:
    drawn = batches(2, 6, 4)
    asked: list[Batch] = []

    def draw() -> Batch:
        asked.append(next(drawn))
        return asked[-1]

    async with entrant("a") as one, entrant("b") as other:
        results = await race([one, other], draw, 3, proves=True)
    assert len(asked) == 4
    assert {key: len(result.tokens_per_s.values) for key, result in results.items()} == {"a": 3, "b": 3}


async def test_an_engine_with_other_answers_is_found_out() -> None:
    async with entrant("a") as one, entrant("b", shift=1) as other:
        with pytest.raises(BenchmarkBroken, match="b and a begin only 0 of 2 answers alike"):
            await race([one, other], batches(2, 6, 4).__next__, 1, proves=True)


async def test_an_answer_that_is_too_short_is_no_result() -> None:
    async with entrant("a", tokens=1) as one:
        with pytest.raises(BenchmarkBroken, match="instead of 4"):
            await race([one], batches(2, 6, 4).__next__, 1, proves=False)


def test_no_two_batches_begin_alike_and_every_run_draws_the_same() -> None:
    drawn, again = batches(8, 16, 4), batches(8, 16, 4)
    first, second = next(drawn), next(drawn)
    assert (first, second) == (next(again), next(again))
    assert len({prompt[:4] for prompt in first.prompts + second.prompts}) == 16
