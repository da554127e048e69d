"""Sampling: every wrong field is named at once; what is not asked comes from the model, and then from us."""

import math
from typing import Any

import pytest
from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.errors import InvalidRequest
from mesh.requests import Guide, GuideKind, Sampling, TokenBias
from services.gateway.sampling import resolve
from services.gateway.texts import Text

SAMPLES = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05}


def text(**generation: Any) -> Text:
    """A model whose generation_config says this; its answers end at 2 or 3."""
    return Text(None, None, generation, (2, 3), 1000, 512)


def resolved(
    model: Text | None = None, *, room: int = 100, default: int = 64, request_id: str = "r", **asked: Any
) -> Sampling:
    """The sampling for a request."""
    return resolve(pb.SamplingParams(**asked), model or text(), room, default, request_id)


def fields_refused(**asked: Any) -> list[str]:
    """The fields that an InvalidRequest names."""
    with pytest.raises(InvalidRequest) as caught:
        resolved(**asked)
    assert caught.value.reason == "BAD_SAMPLING"
    assert all(violation.description in caught.value.message for violation in caught.value.violations)
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", (1 << 20) + 1),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", (1 << 20) + 1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", 10.1),
        ("presence_penalty", -2.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", math.nan),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("logit_bias", {1: 100.1}),
        ("logit_bias", {1: -100.1, 2: 0.0}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1000: 1.0}),
        ("logit_bias", dict.fromkeys(range(1000), 1.0) | {5: -101.0}),
        ("top_logprobs", 21),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    assert fields_refused(**{field: value}) == [f"sampling.{field}"]


def test_all_wrong_fields_are_named_at_once() -> None:
    wrong = fields_refused(max_tokens=0, temperature=3.0, top_p=2.0, min_p=2.0, presence_penalty=9.0, stop=["", "a"])
    names = ("max_tokens", "temperature", "top_p", "min_p", "presence_penalty", "stop")
    assert wrong == [f"sampling.{name}" for name in names]


@pytest.mark.parametrize(
    "asked",
    [
        {"max_tokens": 1},
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_k": 0},
        {"top_p": 1.0},
        {"min_p": 0.0},
        {"min_p": 1.0},
        {"repetition_penalty": 10.0},
        {"presence_penalty": -2.0},
        {"frequency_penalty": 2.0},
        {"top_logprobs": 0},
        {"top_logprobs": 20},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(asked: dict[str, Any]) -> None:
    ((field, value),) = asked.items()
    assert getattr(resolved(**asked), field) == value


def test_sixteen_stops_are_allowed() -> None:
    resolved(stop=["x"] * 16)


def test_without_wishes_or_a_models_own_the_answer_is_greedy() -> None:
    sampling = resolved(seed=7)
    assert sampling == Sampling(64, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 7, (2, 3))


def test_a_model_that_samples_gives_its_own_defaults() -> None:
    sampling = resolved(text(**SAMPLES, repetition_penalty=1.25))
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.7, 20, 0.8, 0.05)
    assert sampling.repetition_penalty == 1.25


def test_a_model_that_samples_without_a_temperature_samples_at_one() -> None:
    assert resolved(text(do_sample=True)).temperature == 1.0


def test_what_a_greedy_models_config_says_of_sampling_is_ignored_but_its_penalty_counts() -> None:
    """As in transformers: a repetition penalty works on greedy answers too."""
    sampling = resolved(text(**SAMPLES | {"do_sample": False}, repetition_penalty=1.25))
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.0, 0, 1.0, 0.0)
    assert sampling.repetition_penalty == 1.25


def test_a_null_in_the_models_config_is_nothing() -> None:
    sampling = resolved(text(do_sample=True, temperature=None, top_k=None, repetition_penalty=None))
    assert (sampling.temperature, sampling.top_k, sampling.repetition_penalty) == (1.0, 0, 1.0)


def test_what_is_asked_counts_before_the_models_own_even_when_it_is_zero() -> None:
    sampling = resolved(text(**SAMPLES), temperature=0.0, top_k=0, min_p=0.0, top_p=0.5)
    assert (sampling.temperature, sampling.top_k, sampling.min_p, sampling.top_p) == (0.0, 0, 0.0, 0.5)


def test_no_more_tokens_than_the_context_has_room_for() -> None:
    assert resolved(room=10, default=64).max_tokens == 10
    assert resolved(room=10, max_tokens=50).max_tokens == 10
    assert resolved(room=100, default=64).max_tokens == 64
    assert resolved(room=100, max_tokens=80).max_tokens == 80


def test_an_asked_seed_is_taken_even_when_it_is_zero_or_the_largest() -> None:
    assert resolved(seed=0).seed == 0
    assert resolved(seed=(1 << 64) - 1).seed == (1 << 64) - 1


def test_without_a_seed_each_request_gets_one_of_its_own_by_its_id() -> None:
    seeds = {resolved(request_id=str(number)).seed for number in range(4)}
    assert len(seeds) == 4
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert resolved(request_id="3").seed in seeds  # it may come back, to another gateway


def test_the_models_ends_and_the_asked_ones_stop_the_answer() -> None:
    assert resolved(stop_token_ids=[9, 3]).stop_token_ids == (2, 3, 9)


def test_the_models_ends_can_be_ignored_and_the_asked_ones_not() -> None:
    assert resolved(ignore_eos=True, stop_token_ids=[9]).stop_token_ids == (9,)


def test_biases_are_taken_by_token_in_order() -> None:
    biases = resolved(logit_bias={9: -100.0, 3: 2.5}).logit_bias
    assert biases == (TokenBias(3, 2.5), TokenBias(9, -100.0))


def test_more_than_1024_biases_are_refused() -> None:
    unbounded = Text(None, None, {}, (), 0, 512)
    assert len(resolved(unbounded, logit_bias=dict.fromkeys(range(1024), 1.0)).logit_bias) == 1024
    with pytest.raises(InvalidRequest, match="at most 1024"):
        resolved(unbounded, logit_bias=dict.fromkeys(range(1025), 1.0))


def test_without_a_wish_nothing_is_told_of_likelihoods() -> None:
    assert resolved().top_logprobs is None


@pytest.mark.parametrize(
    ("asked", "guide"),
    [
        (pb.Guide(), None),
        (pb.Guide(json_object=False), None),
        (pb.Guide(json_object=True), Guide(GuideKind.JSON_OBJECT)),
        (pb.Guide(regex="a+"), Guide(GuideKind.REGEX, "a+")),
        (pb.Guide(json_schema="{}"), Guide(GuideKind.JSON_SCHEMA, "{}")),
    ],
)
def test_a_guide_is_taken_as_it_is(asked: pb.Guide, guide: Guide | None) -> None:
    assert resolved(guide=asked).guide == guide
