from dataclasses import replace
from typing import Any

from mesh.facts import NumericsLevel
from services.worker.engine.batch import Limits, Paged, Span, plan_step
from services.worker.engine.blocks import BlockAllocator, PrefixHit
from services.worker.engine.numerics import FAST, LEVELS
from services.worker.engine.passes import passes
from services.worker.engine.table import BlockTable
from tests.services.worker.engine.tiny import request

BATCH = replace(LEVELS[NumericsLevel.BATCH_INVARIANT], tile=4, chunk_tokens=32)
PATH = replace(LEVELS[NumericsLevel.PATH_INVARIANT], tile=4)


def generation(prompt_len: int, generated: int = 0, kv_len: int = 0) -> Paged:
    table = BlockTable(BlockAllocator(64), 16)
    table.grow(kv_len, kv_len)
    tokens = [7] * (prompt_len + generated)
    one = request("r", tuple(tokens[:prompt_len]), generated=tuple(tokens[prompt_len:]))
    return Paged(one, tokens, 999, frozenset(), table, kv_len)


def shape(spans: list[Span], numerics: Any) -> list[tuple[list[tuple[int, int]], int]]:
    """Each pass's (start, end) pairs, and its rows."""
    return [([(span.start, span.end) for span in one.spans], one.rows) for one in passes(spans, numerics)]


def test_fast_takes_everything_in_one_pass_as_it_is() -> None:
    spans = [Span(generation(9, 1, kv_len=9), 1), Span(generation(70), 70)]
    assert shape(spans, FAST) == [([(9, 10), (0, 70)], 0)]


def test_a_prompt_is_cut_at_absolute_positions_and_its_answer_into_single_tokens_of_full_tiles() -> None:
    spans = [Span(generation(9, 1, kv_len=9), 1), Span(generation(70, 5, kv_len=32), 43)]
    assert shape(spans, BATCH) == [
        ([(32, 64)], 0),
        ([(64, 70)], 0),
        ([(9, 10), (70, 71), (71, 72), (72, 73)], 4),
        ([(73, 74), (74, 75)], 4),
    ]


def test_a_chunk_of_one_token_is_a_row_like_any_other() -> None:
    assert shape([Span(generation(33), 33)], BATCH) == [([(0, 32)], 0), ([(32, 33)], 4)]


def test_path_invariant_knows_nothing_but_single_tokens() -> None:
    assert shape([Span(generation(6), 6)], PATH) == [
        ([(0, 1), (1, 2), (2, 3), (3, 4)], 4),
        ([(4, 5), (5, 6)], 4),
    ]


def planned(running: list[Paged], waiting: list[Paged], batch_tokens: int, idle_blocks: int = 64) -> list[int]:
    plan = plan_step(
        running,
        waiting,
        idle_blocks=idle_blocks,
        block_tokens=16,
        limits=Limits(batch_tokens=batch_tokens),
        prefix=lambda _: PrefixHit(),
        numerics=BATCH,
    )
    return [span.count for span in plan.spans]


def test_a_step_takes_whole_chunks_though_its_tokens_are_fewer() -> None:
    assert planned([], [generation(70), generation(70)], 48) == [64]
    assert planned([generation(9, 1, kv_len=9)], [generation(70)], 3) == [1, 32]
    assert planned([generation(70, kv_len=64)], [], 3) == [6]


def test_a_chunk_that_the_blocks_left_do_not_hold_waits_whole() -> None:
    older, younger = generation(100, 1, kv_len=100), generation(70, kv_len=32)
    assert planned([older, younger], [], 48, idle_blocks=1) == [1]
    assert planned([older, younger], [], 48, idle_blocks=2) == [1, 32]


def test_only_whole_chunks_of_a_prompt_are_shared() -> None:
    assert [BATCH.shareable(tokens, 70) for tokens in (31, 32, 69, 90)] == [0, 32, 64, 64]
    assert [FAST.shareable(90, 70), PATH.shareable(90, 70)] == [90, 90]
