"""A guide that no answer can keep to is refused before the request waits for anything, in the library's words."""

from typing import Any

import pytest
from llguidance import LLTokenizer
from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.errors import InvalidRequest, Unsuitable
from services.gateway.guides import check_guide
from services.gateway.texts import Text
from tests.services.gateway.tiny_tokenizers import KINDS, byte_level

SPELLED = Text(byte_level(), None, {}, (), 320, 512)
MUTE = Text(None, None, {}, (), 320, 512)


async def check(text: Text = SPELLED, **guide: Any) -> None:
    """Asks for an answer of that shape."""
    await check_guide(pb.SamplingParams(guide=pb.Guide(**guide)), text)


@pytest.mark.parametrize(
    "guide", [{"json_object": True}, {"json_schema": '{"type": "integer"}'}, {"json_schema": "true"}, {"regex": "a|b"}]
)
async def test_a_guide_that_can_be_followed_is_let_through(guide: dict[str, Any]) -> None:
    await check(**guide)


async def test_no_guide_is_no_fault_even_of_a_model_without_a_tokenizer() -> None:
    await check_guide(pb.SamplingParams(), MUTE)


@pytest.mark.parametrize(
    ("guide", "field", "reason"),
    [
        ({"json_schema": "{"}, "json_schema", "is not JSON"),
        ({"json_schema": "[" * 60_000}, "json_schema", "is not JSON"),
        ({"json_schema": '{"type": "bird"}'}, "json_schema", "Invalid type: bird"),
        ({"json_schema": '{"type": "string", "minLength": 3, "maxLength": 2}'}, "json_schema", "minLength"),
        ({"json_schema": '{"not": {}}'}, "json_schema", "Unimplemented"),
        ({"json_schema": '{"$ref": "http://127.0.0.1/schema"}'}, "json_schema", "does not fetch"),
        ({"regex": "("}, "regex", "unclosed group"),
        ({"regex": "(?=a)b"}, "regex", "look-around"),
        ({"regex": "x" * ((1 << 16) + 1)}, "regex", "at most 65536 characters"),
        ({"json_object": False}, "json_object", "json_object = true"),
        ({}, "kind", "must be a schema"),
    ],
)
async def test_one_that_cannot_is_named_with_the_reason(guide: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        await check(**guide)
    assert refused.value.reason == "BAD_GUIDE"
    assert [violation.field for violation in refused.value.violations] == [f"sampling.guide.{field}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_guide_is_refused_for_just_the_tokenizers_that_the_worker_could_not_compile_it_for(kind: str) -> None:
    tokenizer = KINDS[kind]()
    try:
        LLTokenizer(tokenizer.to_str(), eos_token=[0])
    except ValueError:
        with pytest.raises(Unsuitable) as refused:
            await check(Text(tokenizer, None, {}, (), 320, 512), json_object=True)
        assert refused.value.reason == "NO_TOKENIZER"
    else:
        await check(Text(tokenizer, None, {}, (), 320, 512), json_object=True)


async def test_a_model_without_a_tokenizer_cannot_be_guided() -> None:
    with pytest.raises(Unsuitable) as refused:
        await check(MUTE, json_object=True)
    assert refused.value.reason == "NO_TOKENIZER"
