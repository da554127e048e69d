"""Sequences that leave one replica in the midst of their answer, and go on on another that is busy."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mesh.facts import NumericsLevel
from mesh.requests import FinishReason
from services.worker.engine.arrivals import Room
from services.worker.engine.batch import Limits
from services.worker.engine.departures import Lap, SequenceState, Stand
from services.worker.engine.engine import Engine
from services.worker.engine.errors import (
    DuplicateRequest,
    ImportIncomplete,
    ImportRefused,
    LayoutMismatch,
    NotExportable,
    NotMovable,
    PromptTooLong,
    UnknownReplica,
    UnknownRequest,
)
from services.worker.engine.mover import Mover
from services.worker.engine.numerics import LEVELS
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine.test_engine import PATIENCE_S, Heard, running
from tests.services.worker.engine.tiny import (
    BLOCK_TOKENS,
    FAMILIES,
    greedy,
    prompt,
    replica,
    request,
    run,
    tokens_of,
)


def steps(model: PackedReplica, count: int) -> list[TokenStep]:
    with torch.inference_mode():
        return [step for _ in range(count) for step in model.step()]


def send(source: PackedReplica, target: PackedReplica, state: SequenceState, first: int) -> None:
    """Each layer's blocks from `first` on, one message a layer."""
    name = state.request.request_id
    for layer in range(state.layers):
        target.arrivals.receive(name, layer, first, source.departures.export_kv(name, layer, first, state.blocks))


def go_on(target: PackedReplica, state: SequenceState, as_id: str = "") -> None:
    """All has come: run, under the same name unless told otherwise."""
    name, tokens = state.request.request_id, (*state.request.prompt_ids, *state.request.generated)
    target.arrivals.complete(name, tokens, state.kv_tokens)
    known, ended = target.adopt(name, replace(state.request, request_id=as_id or name))
    assert known >= state.kv_tokens
    assert ended == [TokenStep(name, len(state.request.generated), (), FinishReason.CANCELLED)]


def hand_over(source: PackedReplica, target: PackedReplica, name: str) -> None:
    """Stop, copy what `target` lacks, go on there."""
    source.departures.pause(name)
    state = source.departures.describe(name)
    send(source, target, state, target.arrivals.begin(state))
    go_on(target, state)
    assert [step.finish for step in source.cancel(name)] == [FinishReason.CANCELLED]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sequence_goes_on_in_a_busy_replica_with_the_same_tokens(family: str) -> None:
    source, target = replica(family), replica(family, limits=Limits(batch_tokens=24))
    source.add(request("moved", prompt(17)))
    source.add(request("stays", prompt(9)))
    target.add(request("busy", prompt(10)))
    target.add(request("prefills", prompt(40)))
    produced = steps(source, 9) + steps(target, 1)
    hand_over(source, target, "moved")
    produced += run(source, []) + run(target, [])
    expected = {"moved": 17, "stays": 9, "busy": 10, "prefills": 40}
    assert tokens_of(produced) == {name: greedy(family, prompt(n), 24) for name, n in expected.items()}
    assert all(one.stats().free_blocks == one.stats().total_blocks for one in (source, target))


def test_full_blocks_leave_while_the_sequence_goes_on() -> None:
    source, target = replica(), replica()
    source.add(request("r", prompt(17), 40))
    produced = steps(source, 3)
    early = source.departures.describe("r")
    full = replace(early, kv_tokens=early.kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS)
    assert target.arrivals.begin(early) == 0
    send(source, target, full, 0)
    produced += steps(source, 20)  # meanwhile
    source.departures.pause("r")
    late = source.departures.describe("r")
    target.arrivals.extend("r", late.kv_tokens)
    send(source, target, late, full.blocks)
    go_on(target, late)
    source.cancel("r")
    assert tokens_of(produced + run(target, [])) == {"r": greedy("llama", prompt(17), 40)}
    assert target.stats().prefix_tokens == 0


def test_a_prefill_moves_half_done() -> None:
    source, target = replica(limits=Limits(batch_tokens=16)), replica()
    source.add(request("r", prompt(40)))
    assert steps(source, 1) == []
    hand_over(source, target, "r")
    assert tokens_of(run(target, [])) == {"r": greedy("llama", prompt(40), 24)}


def test_blocks_that_are_there_already_are_neither_sent_nor_taken() -> None:
    source, target = replica(), replica()
    run(target, [request("earlier", prompt(40))])
    source.add(request("r", prompt(40)))
    produced = steps(source, 4)
    source.departures.pause("r")
    state = source.departures.describe("r")
    assert target.arrivals.lookup(state.request) == 40
    assert target.arrivals.begin(state) == 5
    with pytest.raises(ImportRefused, match="takes 5 to 6"):
        target.arrivals.receive("r", 0, 4, source.departures.export_kv("r", 0, 4, 6))
    send(source, target, state, 5)
    go_on(target, state)
    source.cancel("r")
    assert tokens_of(produced + run(target, [])) == {"r": greedy("llama", prompt(40), 24)}


def test_a_moved_sequence_leaves_a_prefix_for_the_next_turn() -> None:
    source, target = replica(), replica()
    source.add(request("turn 1", prompt(17)))
    produced = steps(source, 9)
    hand_over(source, target, "turn 1")
    answer = tokens_of(produced + run(target, []))["turn 1"]
    second = prompt(17) + answer + prompt(3)
    assert tokens_of(run(target, [request("turn 2", second)])) == {"turn 2": greedy("llama", second, 24)}
    assert target.stats().prefix_tokens == 40


def test_seeded_and_penalised_sampling_goes_on_after_a_move() -> None:
    params: dict[str, Any] = {"temperature": 1.0, "seed": 7, "repetition_penalty": 1.3, "presence_penalty": 0.5}
    alone = tokens_of(run(replica(), [request("r", prompt(12), **params)]))
    source, target = replica(), replica()
    source.add(request("r", prompt(12), **params))
    produced = steps(source, 7)
    hand_over(source, target, "r")
    assert tokens_of(produced + run(target, [])) == alone


def test_a_paused_sequence_takes_no_step_until_it_is_resumed() -> None:
    model = replica()
    model.add(request("r", prompt(17)))
    produced = steps(model, 5)
    model.departures.pause("r")
    model.departures.pause("r")
    assert (model.has_work, model.departures.describe("r").paused) == (False, True)
    other = run(model, [request("other", prompt(9))])
    assert tokens_of(other) == {"other": greedy("llama", prompt(9), 24)}
    model.departures.resume("r")
    model.departures.resume("r")
    assert tokens_of(produced + run(model, [])) == {"r": greedy("llama", prompt(17), 24)}


@pytest.mark.parametrize("level", NumericsLevel)
@pytest.mark.parametrize("heard", [0, 5, 9, 30])
def test_one_that_stands_still_goes_on_as_another_with_the_log_that_its_owner_has(
    level: NumericsLevel, heard: int
) -> None:
    """Whether it has heard less than was said, or more: from elsewhere, and this one was left behind."""
    model, answer = replica(numerics=LEVELS[level]), greedy("llama", prompt(17), 40)
    model.add(request("r", prompt(17), 40))
    steps(model, 12)
    model.departures.pause("r")
    known, ended = model.adopt("r", request("r on", prompt(17), 40, generated=answer[:heard]))
    assert [(step.request_id, step.finish) for step in ended] == [("r", FinishReason.CANCELLED)]
    assert min(17 + heard, 28) - BLOCK_TOKENS < known <= min(16 + heard, 28) or level is NumericsLevel.BATCH_INVARIANT
    assert tokens_of(run(model, [])) == {"r on": answer[heard:]}
    assert model.stats().free_blocks == model.stats().total_blocks


def test_one_whose_log_is_another_is_computed_from_where_they_part() -> None:
    model = replica()
    model.add(request("r", prompt(17), 40))
    answer = tokens_of(steps(model, 12))["r"]
    other = (*answer[:6], answer[6] + 1)
    known, _ = model.adopt("r", request("r on", prompt(17), 40, generated=other))
    assert known == 16
    assert tokens_of(run(model, [])) == {"r on": greedy("llama", prompt(17) + other, 33)}


def test_what_is_gone_or_has_all_its_tokens_is_adopted_too() -> None:
    model, answer = replica(), greedy("llama", prompt(17), 24)
    assert model.adopt("gone", request("r", prompt(17), generated=answer[:5])) == (0, [])
    assert tokens_of(run(model, [])) == {"r": answer[5:]}
    model.add(request("r", prompt(17)))
    steps(model, 20)
    _, ended = model.adopt("r", request("r on", prompt(17), generated=answer))
    assert ended == [
        TokenStep("r", 20, (), FinishReason.CANCELLED),
        TokenStep("r on", 24, (), FinishReason.LENGTH),
    ]
    assert model.stats().free_blocks == model.stats().total_blocks


@pytest.mark.parametrize(("later", "known"), [(15, 27), (0, 24)])
def test_what_has_come_of_an_arrival_is_gone_on_from_when_its_source_is_lost(later: int, known: int) -> None:
    """A last block may have been sent half full; which tokens are beyond the 27 announced is not known."""
    source, target, answer = replica(), replica(), greedy("llama", prompt(17), 40)
    source.add(request("r", prompt(17), 40))
    steps(source, 10)
    target.arrivals.begin(source.departures.describe("r"))
    steps(source, later)
    source.departures.pause("r")
    state = source.departures.describe("r")
    target.arrivals.extend("r", state.kv_tokens)
    send(source, target, state, 0)
    log = answer[: min(20, 10 + later)]
    assert target.adopt("r", request("r", prompt(17), 40, generated=log))[0] == known
    assert tokens_of(run(target, [])) == {"r": answer[len(log) :]}
    assert target.stats().free_blocks == target.stats().total_blocks


@pytest.mark.parametrize("level", NumericsLevel)
def test_what_is_computed_ahead_is_gone_on_from_with_a_longer_log(level: NumericsLevel) -> None:
    model, answer = replica(numerics=LEVELS[level], limits=Limits(draft_tokens=2)), greedy("llama", prompt(17), 40)
    assert model.warm(request("ahead", prompt(17), 40, generated=answer[:5])) == 0
    busy = run(model, [request("busy", prompt(9), 20)])
    assert busy.pop(0) == TokenStep("ahead", 5, ())
    assert tokens_of(busy) == {"busy": greedy("llama", prompt(9), 20)}
    assert model.warm_on(request("ahead", prompt(17), 40, generated=answer[:9])) == 22
    assert run(model, []) == [TokenStep("ahead", 9, ())]
    computed = model.stats().steps
    known, ended = model.adopt("ahead", request("r", prompt(17), 40, generated=answer[:11]))
    assert (known, ended) == (26, [TokenStep("ahead", 9, (), FinishReason.CANCELLED)])
    assert tokens_of(run(model, [])) == {"r": answer[11:]}
    assert model.stats().steps - computed <= 40 - 11
    assert model.stats().free_blocks == model.stats().total_blocks


def test_one_that_is_computed_ahead_is_adopted_half_done_or_cancelled() -> None:
    model, answer = replica(limits=Limits(batch_tokens=16)), greedy("llama", prompt(40), 24)
    model.warm(request("ahead", prompt(40)))
    assert steps(model, 1) == []
    assert model.adopt("ahead", request("r", prompt(40), generated=answer[:3]))[0] == 16
    assert tokens_of(run(model, [])) == {"r": answer[3:]}
    assert model.warm(request("ahead", prompt(40), generated=answer)) == 56
    assert steps(model, 1) == [TokenStep("ahead", 24, ())]
    assert [step.finish for step in model.cancel("ahead")] == [FinishReason.CANCELLED]
    with pytest.raises(UnknownRequest, match="given way"):
        model.warm_on(request("ahead", prompt(40)))
    assert model.stats().free_blocks == model.stats().total_blocks


def test_what_is_computed_ahead_gives_way_to_what_runs() -> None:
    model = replica(blocks=10)
    model.warm(request("ahead", prompt(40)))
    steps(model, 1)
    produced = run(model, [request("busy", prompt(20), 40)])
    assert {step.request_id: step.finish for step in produced} == {
        "ahead": FinishReason.ERROR,
        "busy": FinishReason.LENGTH,
    }
    assert model.stats().preemptions == 0


def test_a_paused_sequence_gives_way_when_nobody_else_could_advance() -> None:
    model = replica(blocks=8)
    model.add(request("r", prompt(40)))
    produced = steps(model, 3)
    model.departures.pause("r")
    assert tokens_of(run(model, [request("other", prompt(30))])) == {"other": greedy("llama", prompt(30), 24)}
    assert model.departures.describe("r").kv_tokens == 0
    with pytest.raises(NotExportable, match="0 blocks"):
        model.departures.export_kv("r", 0, 0, 1)
    model.departures.resume("r")
    assert tokens_of(produced + run(model, [])) == {"r": greedy("llama", prompt(40), 24)}


def test_what_left_beside_the_steps_is_of_no_use_when_the_sequence_has_given_way_meanwhile() -> None:
    model = replica(blocks=8)
    model.add(request("r", prompt(20)))
    steps(model, 3)
    lap = model.departures.lap("r", 1)
    assert (lap.first, lap.end, len(lap.blocks)) == (1, 2, 1)
    assert model.departures.lap("r", lap.end, lap.term).blocks == ()
    assert isinstance(model.departures.lap_or_stop("r", 0, lap.term), Lap)
    assert isinstance(model.departures.lap_or_stop("r", 1, lap.term), Stand)
    run(model, [request("other", prompt(50), 14)])
    model.departures.resume("r")
    steps(model, 2)
    assert model.departures.describe("r").full_blocks > 1  # it is here again, at other places perhaps
    with pytest.raises(NotExportable, match="given way"):
        model.departures.lap("r", lap.end, lap.term)
    with pytest.raises(NotExportable, match="given way"):
        model.departures.stop("r", lap.end, lap.term)
    assert not model.departures.describe("r").paused
    model.departures.stop("r", 0, model.departures.lap("r", 0).term)


def test_an_import_gives_way_to_what_runs() -> None:
    source, target = replica(), replica(blocks=10)
    source.add(request("r", prompt(40)))
    steps(source, 3)
    state = source.departures.describe("r")
    target.add(request("busy", prompt(20)))
    produced = steps(target, 1)
    target.arrivals.begin(state)
    produced += run(target, [])
    assert {step.request_id: step.finish for step in produced} == {"r": FinishReason.ERROR, "busy": FinishReason.LENGTH}
    assert tokens_of(produced)["busy"] == greedy("llama", prompt(20), 24)
    with pytest.raises(UnknownRequest, match="given way"):
        target.arrivals.complete("r", state.request.prompt_ids, 0)
    assert (target.stats().free_blocks, target.stats().preemptions) == (10, 0)


def test_only_what_is_whole_leaves_and_only_what_fits_comes_in() -> None:
    source, target = replica(), replica(blocks=8, limits=Limits(running=1))
    source.add(request("r", prompt(17)))
    steps(source, 5)  # 21 tokens have KV
    with pytest.raises(NotExportable, match="2 blocks"):
        source.departures.export_kv("r", 0, 0, 3)
    with pytest.raises(NotExportable):
        source.departures.export_kv("r", 2, 0, 1)
    with pytest.raises(UnknownRequest):
        source.departures.describe("nobody")
    source.departures.pause("r")
    state = source.departures.describe("r")
    data = source.departures.export_kv("r", 0, 0, 3)
    with pytest.raises(LayoutMismatch):
        target.arrivals.begin(replace(state, layout=b"another checkpoint"))
    with pytest.raises(ImportRefused, match="more KV blocks"):
        target.arrivals.begin(replace(state, kv_tokens=9 * BLOCK_TOKENS))
    target.arrivals.begin(state)
    with pytest.raises(ImportRefused, match="slots"):
        target.arrivals.begin(state)
    with pytest.raises(ImportRefused, match="more KV blocks"):
        target.arrivals.extend("r", 9 * BLOCK_TOKENS)
    for layer, first, sent in ((0, 1, data), (0, -1, data), (2, 0, data), (0, 0, data[:, 1:])):
        with pytest.raises(ImportRefused):
            target.arrivals.receive("r", layer, first, sent)
    target.arrivals.receive("r", 0, 0, data)
    target.arrivals.receive("r", 0, 0, data)  # again
    target.arrivals.receive("r", 1, 0, source.departures.export_kv("r", 1, 0, 2))
    with pytest.raises(ImportIncomplete, match="layer 1 lacks block 2"):
        target.arrivals.complete("r", prompt(17) + state.request.generated, state.kv_tokens)
    with pytest.raises(ImportRefused, match="other tokens"):
        target.arrivals.complete("r", prompt(17), 18)
    assert [step.finish for step in target.arrivals.abort("r")] == [FinishReason.CANCELLED]
    assert target.arrivals.abort("r") == []
    assert target.stats().free_blocks == 8


def moved_over_engines(source: Engine, target: Engine, name: str) -> None:
    leaving, coming = Mover(source), Mover(target)
    early = leaving.describe(name).result(PATIENCE_S)
    room = coming.reserve(early.request).result(PATIENCE_S)
    assert isinstance(room, Room)
    assert (room.layout, room.blocks_there) == (early.layout, 0)
    full = leaving.export(name, range(early.layers), 0, early.full_blocks).result(PATIENCE_S)
    coming.import_blocks(name, 0, 0, full).result(PATIENCE_S)
    stand = leaving.stop(name, early.full_blocks).result(PATIENCE_S)
    coming.import_blocks(name, 0, early.full_blocks, stand.rest).result(PATIENCE_S)
    state = stand.state
    tokens = (*state.request.prompt_ids, *state.request.generated)
    coming.import_complete(name, tokens, state.kv_tokens).result(PATIENCE_S)
    as_another = replace(state.request, request_id=f"{name} on")
    assert coming.adopt(name, as_another).result(PATIENCE_S) == state.kv_tokens
    source.cancel(name)


def test_a_move_between_two_engines_while_both_run() -> None:
    with running(replica()) as (source, left), running(replica()) as (target, right):
        source.submit(request("moved", prompt(17), 100))
        source.submit(request("stays", prompt(9), 60))
        target.submit(request("busy", prompt(10), 60))
        left.wait("moved", tokens=20)
        moved_over_engines(source, target, "moved")
        left.wait("moved")
        before, after = left.of("moved"), right.wait("moved on")
        tokens = tokens_of(before)["moved"] + tokens_of(after)["moved on"]
        assert tokens == greedy("llama", prompt(17), 100)
        assert after[0].seq >= 20
        assert [step.finish for step in right.of("moved")] == [FinishReason.CANCELLED]
        assert tokens_of(left.wait("stays")) == {"stays": greedy("llama", prompt(9), 60)}
        assert tokens_of(right.wait("busy")) == {"busy": greedy("llama", prompt(10), 60)}


def test_an_engine_computes_ahead_what_another_one_owns() -> None:
    with running(replica()) as (engine, heard):
        mover, answer = Mover(engine), greedy("llama", prompt(17), 100)
        engine.submit(request("busy", prompt(9), 60))
        assert mover.warm(request("ahead", prompt(17), 100, generated=answer[:8])).result(PATIENCE_S) == 0
        heard.wait("ahead", steps=1)
        assert mover.warm(request("ahead", prompt(17), 100, generated=answer[:30])).result(PATIENCE_S) == 25
        heard.wait("ahead", steps=2)
        assert mover.adopt("ahead", request("r", prompt(17), 100, generated=answer[:33])).result(PATIENCE_S) == 47
        assert tokens_of(heard.wait("r")) == {"r": answer[33:]}
        assert tokens_of(heard.wait("busy")) == {"busy": greedy("llama", prompt(9), 60)}
        assert [step.finish for step in heard.of("ahead")] == [None, None, FinishReason.CANCELLED]
        with pytest.raises(PromptTooLong):
            mover.warm(request("ahead", prompt(512)))


def test_an_engine_takes_in_no_import_that_it_could_not_run() -> None:
    with running(replica(blocks=4)) as (engine, heard):
        mover, r = Mover(engine), request("r", prompt(17), 200, generated=(5, 6))
        with pytest.raises(PromptTooLong):
            mover.reserve(replace(r, prompt_ids=prompt(40)))
        with pytest.raises(UnknownReplica):
            mover.reserve(replace(r, replica="gpt2"))
        mover.reserve(replace(r, request_id="first")).result(PATIENCE_S)
        with pytest.raises(ImportRefused, match="more KV blocks"):
            mover.reserve(r).result(PATIENCE_S)
        with pytest.raises(DuplicateRequest):
            mover.reserve(replace(r, request_id="first"))
        engine.cancel("first")
        assert heard.wait("first") == [TokenStep("first", 2, (), FinishReason.CANCELLED)]
        mover.reserve(r).result(PATIENCE_S)  # the one that failed is forgotten
        with pytest.raises(UnknownRequest):
            mover.import_complete("first", prompt(17), 17)


class Still:
    """A replica that generates nothing."""

    name = "still"
    has_work = False

    def check(self, request: EngineRequest) -> None: ...

    def unload(self) -> None: ...

    def fail(self, why: str) -> list[TokenStep]:
        return []


def test_a_replica_that_generates_nothing_says_that_nothing_can_move() -> None:
    engine = Engine(Heard())
    engine.start()
    engine.add_replica(Still())  # type: ignore[arg-type]  # what is not asked for is left out
    with pytest.raises(NotMovable, match="generates nothing that could move"):
        Mover(engine).warm(request("r", prompt(3), on="still")).result(PATIENCE_S)
    engine.close()
