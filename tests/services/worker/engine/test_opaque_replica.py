from dataclasses import replace
from typing import Any

import pytest
import torch

from mesh.facts import NumericsLevel
from mesh.requests import FinishReason, Pooling
from services.worker.engine.batch import Limits
from services.worker.engine.errors import (
    EmptyPrompt,
    ImportRefused,
    LayoutMismatch,
    NotExportable,
    NotMovable,
    NumericsNotHeld,
    PoolTooSmall,
    PromptTooLong,
    StateMismatch,
    TokenOutOfRange,
    UnknownRequest,
)
from services.worker.engine.mover import Mover
from services.worker.engine.numerics import LEVELS
from services.worker.engine.opaque import OpaqueRunner
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.opaque_state import HeldState
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine.opaque_families import OPAQUE, body, fresh, greedy, own_replica, replica
from tests.services.worker.engine.test_engine import PATIENCE_S, running
from tests.services.worker.engine.tiny import VOCABULARY, prompt, request, run, tokens_of
from tests.services.worker.engine.tiny import replica as packed

COUNT = 14
PROMPTS = (prompt(27), prompt(5), prompt(40))


def exported(source: OpaqueReplica, asked: EngineRequest, after: int) -> tuple[list[TokenStep], HeldState]:
    """What `asked` produced in `after` steps on `source` beside another request, and its state then."""
    with torch.inference_mode():
        source.add(asked)
        source.add(request("other", prompt(9), COUNT))
        produced: list[TokenStep] = []
        while sum(step.request_id == asked.request_id for step in produced) < after:
            produced += source.step()
        state = source.export_state(asked.request_id)
        source.cancel(asked.request_id)
    return [step for step in produced if step.request_id == asked.request_id], state


def come(target: OpaqueReplica, state: HeldState, heard: int = 0) -> None:
    """It goes on on `target`, after the first `heard` tokens of its answer, or as many as the state has."""
    log = state.request.generated[: heard or None]
    with torch.inference_mode():
        target.reserve_state(replace(state.request, generated=()))
        target.import_state(state)
        known, steps = target.adopt("r", replace(state.request, generated=log))
    assert (known, [step.finish for step in steps]) == (len(state.seen), [FinishReason.CANCELLED])


@pytest.mark.parametrize("family", OPAQUE)
def test_sequences_that_take_turns_equal_one_at_a_time(family: str) -> None:
    model = replica(family, limits=Limits(batch_tokens=16))
    produced = run(model, [request(str(i), ids, COUNT) for i, ids in enumerate(PROMPTS)], steps_between=3)
    assert tokens_of(produced) == {str(i): greedy(family, ids, COUNT) for i, ids in enumerate(PROMPTS)}
    assert [step.finish for step in produced if step.finish] == [FinishReason.LENGTH] * 3
    assert not model._seats.running
    assert not model._seats.waiting


@pytest.mark.parametrize("family", OPAQUE)
def test_a_sequence_goes_on_elsewhere_from_its_state_and_from_its_tokens(family: str) -> None:
    answer = greedy(family, PROMPTS[0], COUNT)
    before, state = exported(replica(family), request("r", PROMPTS[0], COUNT), after=8)
    assert tokens_of(before) == {"r": answer[:8]}
    assert state.seen == PROMPTS[0] + answer[:7]
    target = replica(family)
    moved = request("r", PROMPTS[0], COUNT, generated=answer[:8])
    assert state.request == replace(moved, replica=state.request.replica)
    come(target, state)
    assert tokens_of(run(target, [request("other", PROMPTS[1], COUNT)]))["r"] == answer[8:]
    assert target.stats().steps == 6 + COUNT  # its prompt was not computed again
    assert tokens_of(run(target, [moved])) == {"r": answer[8:]}


@pytest.mark.parametrize("family", ["bloom", "qwen3_5_text", "llama:dynamic", "phi3:longrope", "llama4_text"])
def test_a_sequence_that_gave_way_goes_on_where_it_was(family: str) -> None:
    model = replica(family, kv_tokens=45, sequences=2)
    produced = run(model, [request(str(n), prompt(n), 24) for n in (27, 28, 5)])
    assert tokens_of(produced) == {str(n): greedy(family, prompt(n), 24) for n in (27, 28, 5)}
    assert model.stats().preemptions > 0


def test_only_as_many_sequences_run_as_memory_holds() -> None:
    model = replica("mamba", kv_tokens=1, sequences=2)  # its state takes the same, however long a sequence is
    with torch.inference_mode():
        for i, ids in enumerate(PROMPTS):
            model.add(request(str(i), ids, COUNT))
        model.step()
        assert (model.stats().running, model.stats().waiting) == (2, 1)


SEEDED: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.3, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 1.0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3},
]


def test_seeded_sampling_is_the_same_alone_in_company_and_rebuilt() -> None:
    requests = [request(f"r{i}", prompt(12 + i), COUNT, seed=i, **params) for i, params in enumerate(SEEDED)]
    alone = {name: ids for one in requests for name, ids in tokens_of(run(replica("lfm2"), [one])).items()}
    assert tokens_of(run(replica("lfm2"), requests, steps_between=2)) == alone
    rebuilt = [
        request(f"r{i}", prompt(12 + i), COUNT, seed=i, generated=alone[f"r{i}"][:9], **params)
        for i, params in enumerate(SEEDED)
    ]
    assert tokens_of(run(replica("lfm2"), rebuilt)) == {name: ids[9:] for name, ids in alone.items()}
    assert tokens_of(run(replica("lfm2"), [request("r0", prompt(12), COUNT, seed=99)]))["r0"] != alone["r0"]


def test_a_stop_token_ends_the_answer_and_its_memory_is_free() -> None:
    answer = greedy("mamba2", PROMPTS[0], COUNT)
    stop = next(token for token in answer if answer.index(token) > 2)
    model = replica("mamba2")
    produced = run(model, [request("r", PROMPTS[0], COUNT, stop_token_ids=(stop,))])
    assert tokens_of(produced)["r"] == answer[: answer.index(stop) + 1]
    assert [step.finish for step in produced if step.finish] == [FinishReason.STOP]
    assert not model._seats.holding


def test_a_cancelled_request_leaves_the_others_as_they_are() -> None:
    model = replica("qwen3_5_text")
    with torch.inference_mode():
        for i, ids in enumerate(PROMPTS):
            model.add(request(str(i), ids, COUNT))
        produced = [step for _ in range(8) for step in model.step()]
        (last,) = model.cancel("1")
        assert (last.finish, model.cancel("1")) == (FinishReason.CANCELLED, [])
    produced = [step for step in produced if step.request_id != "1"] + run(model, [])
    assert tokens_of(produced) == {str(i): greedy("qwen3_5_text", PROMPTS[i], COUNT) for i in (0, 2)}


def test_a_failure_ends_every_request() -> None:
    model = replica("lfm2", limits=Limits(running=1))
    with torch.inference_mode():
        model.add(request("runs", PROMPTS[0]))
        model.step()
        model.add(request("waits", PROMPTS[1]))
        assert [(s.request_id, s.finish, s.error) for s in model.fail("gone")] == [
            ("runs", FinishReason.ERROR, "gone"),
            ("waits", FinishReason.ERROR, "gone"),
        ]
    assert not model.has_work


def test_a_request_that_came_complete_ends_at_once_with_no_token() -> None:
    model = replica("lfm2")
    assert model.add(request("full", prompt(4), 3, generated=(7, 8, 9))) == [
        TokenStep("full", 3, (), FinishReason.LENGTH)
    ]
    assert not model.has_work


def test_requests_that_can_never_run_are_refused_by_name() -> None:
    model = replica("lfm2", kv_tokens=24)
    with pytest.raises(EmptyPrompt):
        model.check(request("r", ()))
    with pytest.raises(PromptTooLong, match="KV memory"):
        model.check(request("r", prompt(24)))
    with pytest.raises(PromptTooLong, match="positions"):
        replica("lfm2").check(request("r", prompt(512)))
    with pytest.raises(TokenOutOfRange):
        model.check(request("r", (3, VOCABULARY)))
    assert len(tokens_of(run(model, [request("r", prompt(20), 100)]))["r"]) == 4


def test_memory_for_no_sequence_at_all_is_refused_with_the_least() -> None:
    module, proof = body("mamba2")
    least = proof.footprint.bytes(2)
    with pytest.raises(PoolTooSmall, match=f"the shortest takes {least}"):
        OpaqueReplica("mamba2", module, least - 1, proof)


def test_a_state_of_other_tokens_or_of_another_model_is_refused() -> None:
    _, state = exported(replica("lfm2"), request("r", PROMPTS[0], COUNT), after=8)
    model = replica("lfm2")
    with pytest.raises(UnknownRequest, match="not kept here"):
        model.import_state(state)
    model.reserve_state(state.request)
    for seen in (state.seen[1:], (), (*state.seen, state.request.generated[-1])):
        with pytest.raises(StateMismatch, match="not of its tokens"):
            model.import_state(replace(state, seen=seen))
    path, tensor = next((path, one) for path, one in state.tensors.items() if one.dim() == 3)
    for odd in (tensor[0], tensor.double(), tensor[:, :-1]):
        with pytest.raises(StateMismatch, match=f"another make-up than this model's: {path};"):
            model.import_state(replace(state, tensors={**state.tensors, path: odd}))
    other = replica("mamba2")
    other.reserve_state(state.request)
    with pytest.raises(LayoutMismatch, match="otherwise than here"):
        other.import_state(state)
    with pytest.raises(StateMismatch, match="another make-up"):
        other.import_state(replace(state, layout=other._layout))
    with pytest.raises(UnknownRequest):
        model.export_state("r")
    model.add(request("fresh", PROMPTS[0]))
    with pytest.raises(NotExportable, match="send its tokens"):
        model.export_state("fresh")


def test_a_state_comes_only_where_there_is_room_and_gives_way_to_what_runs() -> None:
    _, state = exported(replica("lfm2"), request("r", PROMPTS[0], COUNT), after=8)
    model = replica("lfm2", kv_tokens=85)
    with torch.inference_mode():
        model.add(request("first", PROMPTS[1], 60))
        model.step()
        with pytest.raises(ImportRefused, match="no memory"):
            model.reserve_state(replace(state.request, prompt_ids=prompt(70)))
        assert model.reserve_state(state.request).most_bytes >= state.bytes
        model.import_state(state)
        produced = run(model, [])
    assert [(step.request_id, step.finish) for step in produced if step.finish] == [
        ("r", FinishReason.ERROR),
        ("first", FinishReason.LENGTH),
    ]
    full = replica("lfm2", limits=Limits(running=1))
    full.reserve_state(state.request)
    with pytest.raises(ImportRefused, match="slots"):
        full.reserve_state(request("another", PROMPTS[0]))
    assert [step.finish for step in full.cancel("r")] == [FinishReason.CANCELLED]
    assert not full._seats.holding


@pytest.mark.parametrize("level", NumericsLevel)
@pytest.mark.parametrize("family", ["bloom", "mamba2", "phi3:longrope"])
@pytest.mark.parametrize("heard", [0, 7])
def test_what_is_computed_ahead_is_gone_on_from_with_a_longer_log(
    family: str, level: NumericsLevel, heard: int
) -> None:
    model, answer = replica(family, numerics=LEVELS[level]), greedy(family, PROMPTS[0], COUNT)
    model.warm(request("ahead", PROMPTS[0], COUNT, generated=answer[:heard]))
    produced = run(model, [request("other", PROMPTS[1], COUNT)])
    assert TokenStep("ahead", heard, ()) in produced
    assert tokens_of(produced)["other"] == greedy(family, PROMPTS[1], COUNT)
    model.warm_on(request("ahead", PROMPTS[0], COUNT, generated=answer[:9]))
    assert run(model, []) == [TokenStep("ahead", 9, ())]
    known, _ = model.adopt("ahead", request("r", PROMPTS[0], COUNT, generated=answer[:11]))
    assert known == len(PROMPTS[0]) + 8
    assert tokens_of(run(model, [])) == {"r": answer[11:]}
    assert not model._seats.holding


def test_a_state_that_takes_no_more_than_one_token_is_given_them_one_by_one() -> None:
    """What recurrent_gemma's window holds is attended to rightly by one token only."""
    asked, answer = prompt(17), greedy("recurrent_gemma", prompt(17), COUNT)
    model = replica("recurrent_gemma")
    model.warm(request("ahead", asked, COUNT, generated=answer[:1]))
    run(model, [])
    model.adopt("ahead", request("r", asked, COUNT, generated=answer[:4]))
    assert tokens_of(run(model, [])) == {"r": answer[4:]}


@pytest.mark.parametrize("wants", [{}, {"top_logprobs": 1}])
def test_one_that_runs_goes_on_as_another_that_has_heard_less(wants: dict[str, Any]) -> None:
    """Its state cannot be cut, so what has been said beyond the log is said again."""
    model, answer = replica("mamba2"), greedy("mamba2", PROMPTS[0], COUNT)
    with torch.inference_mode():
        model.add(request("r", PROMPTS[0], COUNT, **wants))
        said = [step for _ in range(8) for step in model.step()]
        found, (last, again) = model.adopt("r", request("r on", PROMPTS[0], COUNT, generated=answer[:3], **wants))
    assert (found, last) == (len(PROMPTS[0]) + 7, TokenStep("r", 8, (), FinishReason.CANCELLED))
    assert (again.seq, again.tokens) == (3, answer[3:8])
    assert again.logprobs == tuple(one for step in said[3:] for one in step.logprobs)
    rest = run(model, [])
    assert tokens_of([again, *rest]) == {"r on": answer[3:]}
    assert all(len(step.logprobs) == len(wants) for step in rest)


def test_what_is_said_again_has_its_likelihoods_or_is_computed_anew() -> None:
    """They do not come with a state from elsewhere."""
    wanted = request("r", PROMPTS[0], COUNT, top_logprobs=1)
    _, state = exported(replica("mamba2"), wanted, after=8)
    model, log = replica("mamba2"), state.request.generated[:3]
    model.reserve_state(replace(state.request, generated=()))
    with torch.inference_mode():
        model.import_state(state)
        assert model.adopt("r", replace(wanted, generated=log))[0] == 0
    rest = run(model, [])
    assert tokens_of(rest) == {"r": greedy("mamba2", PROMPTS[0], COUNT)[3:]}
    assert [one.top[0].token_id for step in rest for one in step.logprobs] == list(tokens_of(rest)["r"])
    other = request("r", PROMPTS[1], COUNT)
    assert model.adopt("gone", other) == (0, [])
    assert tokens_of(run(model, [])) == {"r": greedy("mamba2", PROMPTS[1], COUNT)}


@pytest.mark.parametrize("family", ["bloom", "mamba2", "recurrent_gemma"])
def test_embeddings_are_transformers_own_hidden_states(family: str) -> None:
    with torch.inference_mode():
        vectors = replica(family).embed(family, [prompt(9), prompt(4)], Pooling.LAST)
        hidden = fresh(family).base_model(input_ids=torch.tensor([prompt(4)]), use_cache=False)[0]
    torch.testing.assert_close(vectors[1], hidden[0, -1])
    with pytest.raises(TokenOutOfRange):
        replica(family).check_input((VOCABULARY,))


def logits(model: OpaqueReplica) -> list[bytes]:
    """Keeps the bytes of each token's logits as the runner gives them."""
    kept: list[bytes] = []
    inner = model._runner.run

    def run(tokens: list[int], count: int, held: Any) -> Any:
        row, held = inner(tokens, count, held)
        kept.append(row.numpy().tobytes())
        return row, held

    model._runner.run = run  # type: ignore[method-assign, assignment]
    return kept


@pytest.mark.parametrize("level", [NumericsLevel.BATCH_INVARIANT, NumericsLevel.PATH_INVARIANT])
@pytest.mark.parametrize("family", ["bloom", "qwen3_5_text", "mamba2"])
def test_above_fast_the_same_bits_come_in_company_and_anew(family: str, level: NumericsLevel) -> None:
    numerics = LEVELS[level]
    alone, rebuilt, busy = (replica(family, numerics=numerics) for _ in range(3))
    first, again = logits(alone), logits(rebuilt)
    answer = tokens_of(run(alone, [request("r", PROMPTS[0], COUNT)]))["r"]
    run(rebuilt, [request("r", PROMPTS[0], COUNT, generated=answer[:8])])
    assert again == first
    among = logits(busy)
    run(busy, [request("r", PROMPTS[0], COUNT), request("other", PROMPTS[1], COUNT)])
    assert [row for row in among if row in first] == first


@pytest.mark.parametrize("family", ["mamba2", "recurrent_gemma"])
def test_a_level_is_proven_and_has_a_fingerprint(family: str) -> None:
    fast, strict, stricter = (replica(family, numerics=LEVELS[level]) for level in NumericsLevel)
    with torch.inference_mode():
        for model in (fast, strict, stricter):
            model.prove()
    assert fast.stats().fingerprint == ""
    assert strict.stats().numerics is NumericsLevel.BATCH_INVARIANT
    assert len({strict.stats().fingerprint, stricter.stats().fingerprint, ""}) == 3
    again = replica(family, numerics=LEVELS[NumericsLevel.BATCH_INVARIANT])
    with torch.inference_mode():
        again.prove()
    assert again.stats().fingerprint == strict.stats().fingerprint


def test_a_level_that_does_not_hold_is_told() -> None:
    model = replica("recurrent_gemma", numerics=LEVELS[NumericsLevel.BATCH_INVARIANT])
    model._runner = OpaqueRunner(model.module)  # does not know where this one keeps its state
    with torch.inference_mode(), pytest.raises(NumericsNotHeld, match="deploy it at level fast"):
        model.prove()
    for module in model.module.modules():
        for name in ("recurrent_states", "conv1d_state"):
            if name in vars(module):
                setattr(module, name, None)


def test_a_state_moves_between_engines() -> None:
    answer = greedy("lfm2", PROMPTS[0], 40)
    with running(own_replica("lfm2"), packed()) as (source, leaving), running(own_replica("lfm2")) as (target, heard):
        source.submit(request("r", PROMPTS[0], 40, on="lfm2"))
        leaving.wait("r", tokens=5)
        state = Mover(source).leave("r", 0).result(PATIENCE_S)
        assert isinstance(state, HeldState)
        coming = Mover(target)
        coming.reserve(replace(state.request, request_id="r>", generated=())).result(PATIENCE_S)
        coming.import_held(replace(state, request=replace(state.request, request_id="r>"))).result(PATIENCE_S)
        log = tokens_of(leaving.wait("r", tokens=9))["r"]  # it has gone on meanwhile
        source.cancel("r")
        coming.adopt("r>", replace(state.request, generated=log)).result(PATIENCE_S)
        assert tokens_of(heard.wait("r")) == {"r": answer[len(log) :]}
        assert [step.finish for step in heard.of("r>")] == [FinishReason.CANCELLED]
        source.submit(request("blocks", PROMPTS[0], 40, on="llama"))
        with pytest.raises(NotMovable, match="keeps KV in blocks"):
            Mover(source).import_held(replace(state, request=request("blocks", PROMPTS[0]))).result(PATIENCE_S)


def test_at_path_invariance_a_token_has_the_same_bits_in_the_prompt_and_in_the_answer() -> None:
    numerics = LEVELS[NumericsLevel.PATH_INVARIANT]
    answering, prompted = replica("bloom", numerics=numerics), replica("bloom", numerics=numerics)
    first, again = logits(answering), logits(prompted)
    answer = tokens_of(run(answering, [request("r", PROMPTS[0], COUNT)]))["r"]
    run(prompted, [request("r", PROMPTS[0] + answer[:8], COUNT - 8)])
    assert again == first


def test_fast_is_not_as_strict() -> None:
    alone, rebuilt = replica("bloom"), replica("bloom")
    first, again = logits(alone), logits(rebuilt)
    answer = tokens_of(run(alone, [request("r", PROMPTS[0], COUNT)]))["r"]
    run(rebuilt, [request("r", PROMPTS[0], COUNT, generated=answer[:8])])
    assert again[-1] != first[-1]
