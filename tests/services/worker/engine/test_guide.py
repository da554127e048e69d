"""A guided answer keeps to its guide, whatever the model would rather say, and wherever it is made."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.requests import FinishReason, Guide, GuideKind, TokenBias
from services.worker.engine.batch import Limits
from services.worker.engine.errors import GuideRefused
from services.worker.engine.request import EngineRequest, TokenStep
from tests.services.worker.engine import opaque_families
from tests.services.worker.engine.guided import BIRD, DATE, SCHEMA, byte_level, end_id, grammar, text_of
from tests.services.worker.engine.test_moving import hand_over, steps
from tests.services.worker.engine.tiny import VOCABULARY, prompt, replica, request, run, tokens_of


def guided(
    name: str, guide: Guide, length: int = 9, count: int = 200, generated: tuple[int, ...] = (), **params: Any
) -> EngineRequest:
    """A request for an answer of the shape of `guide`, that ends at the tokenizer's end."""
    params = {"stop_token_ids": (end_id(),), **params}
    made = request(name, prompt(length), count, generated=generated, **params)
    return EngineRequest(made.request_id, made.replica, made.prompt_ids, made.params, generated, grammar(guide))


def alone(one: EngineRequest) -> tuple[int, ...]:
    """Its tokens, on a replica of its own."""
    return tokens_of(run(replica(), [one]))[one.request_id]


def text(tokens: str) -> list[int]:
    """A text's tokens."""
    return list(byte_level().encode(tokens, add_special_tokens=False).ids)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 2.0, "seed": 4, "top_p": 0.9}])
def test_an_answer_fits_its_schema(params: dict[str, Any]) -> None:
    produced = run(replica(), [guided("r", SCHEMA, **params)])
    bird = json.loads(text_of(tokens_of(produced)["r"]))
    assert bird.keys() == {"name", "legs", "kind"}
    assert 1 <= len(bird["name"]) <= 6
    assert 0 <= bird["legs"] <= 99
    assert bird["kind"] in {"wader", "gull"}
    assert produced[-1].finish is FinishReason.STOP


COMPACT = {"x-guidance": {"whitespace_flexible": False}}
LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -5, "maximum": 120},
        {"type": "string", "maxLength": 3},
        {"enum": ["wader", 7, None, [1]]},
    ]
)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = inner.map(lambda one: {"type": "array", "items": one, "minItems": 1, "maxItems": 2})
    records = st.dictionaries(st.sampled_from(["a", "be", "größe"]), inner, max_size=2).map(
        lambda fields: {
            "type": "object",
            "properties": fields,
            "required": sorted(fields),
            "additionalProperties": False,
        }
    )
    return arrays | records


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is one of a schema made above."""
    match schema.get("type"):
        case None:
            return value in schema["enum"]
        case "boolean" | "null":
            return value is None if schema["type"] == "null" else isinstance(value, bool)
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "array":
            return 1 <= len(value) <= 2 and all(fits(one, schema["items"]) for one in value)
    return value.keys() == schema["properties"].keys() and all(
        fits(value[k], v) for k, v in schema["properties"].items()
    )


@settings(max_examples=8, deadline=None)
@given(st.recursive(LEAVES, _nested, max_leaves=4), st.integers(0, 99), st.sampled_from([0.0, 1.0, 3.0]))
def test_any_answer_fits_any_schema(schema: dict[str, Any], seed: int, temperature: float) -> None:
    guide = Guide(GuideKind.JSON_SCHEMA, json.dumps(schema | COMPACT))
    produced = run(replica(), [guided("r", guide, count=400, temperature=temperature, seed=seed)])
    assert produced[-1].finish is FinishReason.STOP
    assert fits(json.loads(text_of(tokens_of(produced)["r"])), schema)


def test_an_answer_fits_its_expression() -> None:
    answers = {text_of(alone(guided("r", DATE, temperature=1.0, seed=seed))) for seed in range(8)}
    assert len(answers) > 1
    assert all(re.fullmatch(DATE.text, answer) for answer in answers)


def test_any_object_is_an_object() -> None:
    followed = grammar(Guide(GuideKind.JSON_OBJECT)).follow()
    stops = frozenset({end_id()})
    first = followed.allowed([], stops, VOCABULARY).nonzero().flatten().tolist()
    assert {text_of((token,))[0] for token in first} == {"{"}
    assert followed.complete(text('{"a": [1, {}]}'))


def test_an_answer_that_can_only_end_does_without_an_end_token() -> None:
    tokens = alone(guided("r", DATE))
    assert end_id() not in tokens


def test_where_an_answer_may_end_or_go_on_the_models_end_is_one_of_the_choices() -> None:
    followed, stops = grammar(Guide(GuideKind.REGEX, "[0-9]+")).follow(), frozenset({end_id()})
    assert not followed.allowed([], stops, VOCABULARY)[end_id()]
    assert followed.allowed(text("1"), stops, VOCABULARY)[end_id()]
    assert not followed.allowed(text("1"), frozenset(), VOCABULARY)[end_id()]  # the request ignores it


def test_tokens_that_the_model_has_and_the_tokenizer_has_not_never_come() -> None:
    followed = grammar(Guide(GuideKind.REGEX, "(?s:.*)")).follow()
    allowed = followed.allowed([], frozenset({end_id()}), VOCABULARY)
    assert allowed[: byte_level().get_vocab_size()].sum() > 200
    assert not allowed[byte_level().get_vocab_size() :].any()
    assert len(followed.allowed([], frozenset(), 100)) == 100


def test_guided_answers_are_the_same_alone_batched_and_rebuilt() -> None:
    requests = [
        guided(f"r{i}", guide, 12 + i, temperature=1.0, seed=i, top_k=50)
        for i, guide in enumerate([SCHEMA, DATE, SCHEMA, DATE])
    ]
    expected = {one.request_id: alone(one) for one in requests}
    free = request("free", prompt(9), temperature=1.0, seed=9)
    together = tokens_of(run(replica(), [*requests, free], steps_between=2))
    assert together == {**expected, "free": tokens_of(run(replica(), [free]))["free"]}
    rebuilt = [
        guided(f"r{i}", guide, 12 + i, generated=expected[f"r{i}"][:7], temperature=1.0, seed=i, top_k=50)
        for i, guide in enumerate([SCHEMA, DATE, SCHEMA, DATE])
    ]
    assert tokens_of(run(replica(), rebuilt)) == {name: ids[7:] for name, ids in expected.items() if ids[7:]}


def test_a_preempted_guided_answer_goes_on_where_it_was() -> None:
    requests = [guided(f"r{n}", SCHEMA, n, temperature=1.0, seed=n) for n in (9, 10, 11, 17)]
    expected = {one.request_id: alone(one) for one in requests}
    model = replica(blocks=14, limits=Limits(batch_tokens=24))
    assert tokens_of(run(model, requests)) == expected
    assert model.stats().preemptions > 0


def test_a_guided_answer_goes_on_after_a_move() -> None:
    one = guided("r", SCHEMA, 12, temperature=1.0, seed=7, top_logprobs=1, logit_bias=(TokenBias(40, 3.0),))
    expected = run(replica(), [one])
    source, target = replica(), replica()
    source.add(one)
    produced = steps(source, 7)
    hand_over(source, target, "r")
    moved = produced + run(target, [])
    assert tokens_of(moved) == tokens_of(expected)
    assert [len(step.logprobs) for step in moved] == [len(step.tokens) for step in expected]


def test_a_guided_answer_of_a_recurrent_model_goes_on_from_its_log() -> None:
    one = guided("r", SCHEMA, 12, temperature=1.0, seed=7, top_logprobs=1, logit_bias=(TokenBias(40, 3.0),))
    produced = run(opaque_families.replica("lfm2"), [one])
    answer = tokens_of(produced)["r"]
    assert json.loads(text_of(answer)).keys() == {"name", "legs", "kind"}
    assert [len(step.logprobs) for step in produced] == [len(step.tokens) for step in produced]
    rest = run(opaque_families.replica("lfm2"), [replace(one, generated=answer[:5])])
    assert tokens_of(rest)["r"] == answer[5:]


def test_one_that_came_with_a_whole_answer_ends_at_once() -> None:
    date = tuple(text("2024-01-31"))
    assert replica().add(guided("r", DATE, generated=date)) == [TokenStep("r", len(date), (), FinishReason.STOP)]


def test_an_answer_to_which_no_guide_leads_is_an_error_that_says_so() -> None:
    produced = run(replica(), [guided("r", DATE, generated=tuple(text("never")))])
    assert [(step.tokens, step.finish) for step in produced] == [((), FinishReason.ERROR)]
    assert "guide" in produced[0].error


def test_a_dead_end_is_an_error_and_a_place_where_the_answer_may_end_is_an_end() -> None:
    """The vocabulary stops short of what the guide wants: all tokens but the first few are beyond it."""
    followed = grammar(DATE).follow()
    assert not followed.allowed([], frozenset(), 1).any()
    assert "no token" in followed.fault
    followed = grammar(Guide(GuideKind.REGEX, "[0-9]*")).follow()
    assert not followed.allowed([], frozenset(), 1).any()
    assert followed.fault == ""


def test_a_ban_gives_way_where_the_guide_leaves_nothing_else() -> None:
    bans = tuple(TokenBias(token, -100.0) for token in text("01")[:2])
    answer = text_of(alone(guided("r", Guide(GuideKind.REGEX, "[0-3]{8}"), temperature=1.0, seed=5, logit_bias=bans)))
    assert len(answer) == 8
    assert set(answer) <= set("23")
    forced = text_of(alone(guided("r", Guide(GuideKind.REGEX, "[01]{8}"), temperature=1.0, seed=5, logit_bias=bans)))
    assert re.fullmatch("[01]{8}", forced)


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (Guide(GuideKind.JSON_SCHEMA, "{"), "not JSON"),
        (Guide(GuideKind.JSON_SCHEMA, '{"type": "bird"}'), "Invalid type: bird"),
        (Guide(GuideKind.REGEX, "("), "unclosed group"),
    ],
)
def test_a_guide_that_cannot_be_compiled_is_refused_in_the_librarys_words(guide: Guide, reason: str) -> None:
    with pytest.raises(GuideRefused, match=reason):
        grammar(guide)


def test_a_guide_leaves_the_model_its_own_choice_among_what_fits() -> None:
    logits = torch.zeros(VOCABULARY)
    wader, gull = text('"w')[-1], text('"g')[-1]
    assert json.loads(BIRD)["properties"]["kind"]["enum"] == ["wader", "gull"]
    allowed = grammar(SCHEMA).follow().allowed(text('{"name":"a","legs":2,"kind":"'), frozenset(), VOCABULARY)
    assert allowed[wader]
    assert allowed[gull]
    logits[gull] = 1.0
    assert int(logits.masked_fill(~allowed, -torch.inf).argmax()) == gull
