"""What a move takes, either way: the crossover, what opaque replicas change, and what moves teach."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.facts import RunnerKind
from mesh.moves import Moved
from mesh.requests import MoveKind
from policy.knobs import Knobs
from policy.moved import move_ended
from policy.rates import Quantity, Rate, Rates
from policy.transfer import (
    Route,
    computed,
    copied,
    crossover_bytes_per_s,
    crossover_tokens,
    quicker,
    tokens_of,
)
from policy.view import Running
from tests.policy.scene import model

KB = 1000
VERSION = replace(model("m").checkpoint, kv_bytes_per_token=100 * KB, max_context=0, runner=RunnerKind.PACKED)
ROUTE = Route("n1", "n2", VERSION)
FAIR = Knobs(copying_s=0.0, computing_s=0.0, copy_gap_s=0.0, token_s=0.05)  # no constant parts
GUESSED = replace(FAIR, copying_s=0.1, computing_s=0.05, copy_gap_s=0.01)  # what is learnt begins somewhere
POSITIVE = st.floats(1e-3, 1e3)


def route(**changes: Any) -> Route:
    """Of a version like the other but for this."""
    return replace(ROUTE, version=replace(VERSION, **changes))


@pytest.mark.parametrize(("share", "kind"), [(0.8, MoveKind.TOKENS), (1.25, MoveKind.KV)])
def test_kv_is_copied_where_the_link_is_faster_than_the_crossover(share: float, kind: MoveKind) -> None:
    over = crossover_bytes_per_s(VERSION.kv_bytes_per_token, FAIR.prefill_token_s)
    assert over == 100 * KB / 1e-3
    assert quicker(ROUTE, 10_000, Rates(), replace(FAIR, kv_bytes_per_s=share * over)).kind is kind


@given(kv_kb=POSITIVE, token_ms=POSITIVE, link_gb=POSITIVE, ahead_s=st.floats(0, 1))
def test_from_the_crossover_on_a_copy_is_there_sooner(
    kv_kb: float, token_ms: float, link_gb: float, ahead_s: float
) -> None:
    knobs = replace(FAIR, prefill_token_s=token_ms / 1e3, kv_bytes_per_s=link_gb * 1e9, copying_s=ahead_s)
    there = route(kv_bytes_per_token=math.ceil(kv_kb * KB))
    over = crossover_tokens(there, Rates(), knobs)
    for tokens in (1, 10, 1000, 100_000):
        if abs(tokens - over) > 1 + 1e-6 * over:  # the tokens are whole
            sooner = copied(there, tokens, Rates(), knobs).took_s < computed(there, tokens, Rates(), knobs).took_s
            assert sooner == (tokens > over)


def test_short_contexts_are_computed_and_long_ones_copied() -> None:
    knobs = Knobs(copying_s=0.1, computing_s=0.0, kv_bytes_per_s=1e9, prefill_token_s=1e-3)
    over = crossover_tokens(ROUTE, Rates(), knobs)
    assert over == pytest.approx(0.1 / (1e-3 - 1e-4))
    assert quicker(ROUTE, over / 2, Rates(), knobs).kind is MoveKind.TOKENS
    assert quicker(ROUTE, over * 2, Rates(), knobs).kind is MoveKind.KV


def test_what_has_no_kv_to_copy_is_computed_however_long() -> None:
    assert crossover_tokens(route(kv_bytes_per_token=0), Rates(), FAIR) == math.inf
    assert quicker(route(kv_bytes_per_token=0), 1e6, Rates(), FAIR).kind is MoveKind.TOKENS


def test_an_opaque_replica_computes_nothing_ahead_so_its_state_is_copied() -> None:
    opaque = route(kv_bytes_per_token=0, runner=RunnerKind.OPAQUE)
    tokens = computed(opaque, 1000, Rates(), FAIR)
    assert tokens.gap_s == tokens.took_s == pytest.approx(1.0)
    assert quicker(opaque, 1000, Rates(), FAIR).kind is MoveKind.KV


def test_while_tokens_are_computed_the_answer_grows_and_that_is_its_gap() -> None:
    transfer = computed(ROUTE, 1000, Rates(), FAIR)
    assert (transfer.took_s, transfer.device_s) == (pytest.approx(1.0), pytest.approx(1.0))
    assert transfer.gap_s == pytest.approx(1e-3 * 1.0 / FAIR.token_s)


def test_a_request_has_its_prompt_and_a_token_for_each_step_and_no_more_than_the_context() -> None:
    one = Running("r", 100.0, prompt_tokens=30)
    assert tokens_of(one, VERSION, Rates(), 105.0, FAIR) == pytest.approx(30 + 5.0 / 0.05)
    assert tokens_of(one, replace(VERSION, max_context=64), Rates(), 105.0, FAIR) == 64


def ended(kind: MoveKind, **more: Any) -> Moved:
    """A move that went well."""
    return replace(Moved("x", kind, tokens=1000, gap_s=0.02), **more)


def test_moves_teach_how_fast_kv_crosses_and_links_within_a_node_are_others() -> None:
    rates, one = Rates(), Running("r", 0.0, 500)
    for size in [1, 20, 3, 40, 2] * 8:
        moved = ended(MoveKind.KV, bytes_sent=size * 10**8, transfer_s=0.5 + size * 1e8 / 2e9)
        move_ended(rates, ROUTE, moved, one, now=10.0, knobs=GUESSED)
    knobs = replace(GUESSED, kv_bytes_per_s=1.0)
    assert copied(ROUTE, 10_000, rates, knobs).took_s == pytest.approx(0.5 + 1.0 / 2, rel=0.1)
    assert copied(ROUTE, 10_000, rates, knobs).gap_s == pytest.approx(0.02, rel=0.1)
    assert copied(replace(ROUTE, source="n9"), 10_000, rates, knobs).took_s < 1.2
    assert copied(replace(ROUTE, source="n2"), 10_000, rates, knobs).took_s > 1e8


def test_moves_teach_how_fast_tokens_are_computed_and_how_fast_answers_grow() -> None:
    rates, one = Rates(), Running("r", 0.0, 500)
    for there in [0, 900, 500, 100] * 5:
        moved = ended(MoveKind.TOKENS, tokens_there=there, transfer_s=0.1 + (1000 - there) * 0.01)
        move_ended(rates, ROUTE, moved, one, now=10.0, knobs=GUESSED)
    assert computed(ROUTE, 1000, rates, GUESSED).took_s == pytest.approx(10.1, rel=0.1)
    assert tokens_of(one, VERSION, rates, 5.0, GUESSED) == pytest.approx(750, rel=0.01)


def test_a_move_that_failed_teaches_nothing() -> None:
    rates = Rates()
    failed = replace(ended(MoveKind.KV, bytes_sent=1, transfer_s=1.0), failure_reason="WORKER_LOST")
    move_ended(rates, ROUTE, failed, Running("r", 0.0), now=10.0, knobs=GUESSED)
    assert not rates.learnt


def test_the_quicker_way_turns_with_what_was_learnt() -> None:
    """A link that turns out slow makes tokens the better way."""
    rates, knobs = Rates(), replace(GUESSED, kv_bytes_per_s=1e9)
    assert quicker(ROUTE, 4000, rates, knobs).kind is MoveKind.KV
    for _ in range(6):
        moved = ended(MoveKind.KV, bytes_sent=10**8, transfer_s=10.0)
        move_ended(rates, ROUTE, moved, Running("r", 0.0, 1000), now=10.0, knobs=knobs)
    assert quicker(ROUTE, 4000, rates, knobs).kind is MoveKind.TOKENS
    assert Rate(Quantity.KV, "n2", "other") in rates.learnt
