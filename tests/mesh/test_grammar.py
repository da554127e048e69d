"""What a guide lets through, as llguidance reads it: bytes for tokens, so that nothing but the grammar decides."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from mesh.grammar import fault_of, grammar_of
from mesh.requests import Guide, GuideKind
from tests.services.worker.engine.guided import byte_level, end_id

RECORD = {"a": 1, "b": [{"c": "x  \n  y"}, {"c": "z"}]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "object"}}},
    "required": ["a", "b"],
}
COMPACT = json.dumps(SCHEMA | {"x-guidance": {"whitespace_flexible": False}})


def lets_through(guide: Guide, text: str) -> bool:
    """Whether the whole text is an answer."""
    tokenizer = LLTokenizer(byte_level().to_str(), eos_token=[end_id()])
    matcher, tokens = LLMatcher(tokenizer, grammar_of(guide)), byte_level().encode(text).ids
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}])
@pytest.mark.parametrize("text", [json.dumps(SCHEMA), "true", "{}", '{"type": "object"}'])
def test_json_may_be_laid_out_as_people_do(text: str, layout: dict[str, Any]) -> None:
    assert lets_through(Guide(GuideKind.JSON_SCHEMA, text), json.dumps(RECORD, **layout))
    assert lets_through(Guide(GuideKind.JSON_OBJECT), json.dumps(RECORD, **layout))


@pytest.mark.parametrize("text", ['{"a": 1,\n\n"b": []}', '{"a":   1, "b": []}', '{"a": 1, "b": []}' + " " * 3])
def test_white_space_has_an_end(text: str) -> None:
    for guide in (Guide(GuideKind.JSON_SCHEMA, json.dumps(SCHEMA)), Guide(GuideKind.JSON_OBJECT)):
        assert not lets_through(guide, text)


def test_a_schema_may_say_what_white_space_it_wants() -> None:
    compact = Guide(GuideKind.JSON_SCHEMA, COMPACT)
    assert lets_through(compact, json.dumps(RECORD, separators=(",", ":")))
    assert not lets_through(compact, json.dumps(RECORD))
    wide = Guide(GuideKind.JSON_SCHEMA, json.dumps(SCHEMA | {"x-guidance": {"whitespace_pattern": "[ ]+"}}))
    assert lets_through(wide, '{"a":      1, "b": []}')


@pytest.mark.parametrize("text", ["[1]", "1", "null", "false", '"text"'])
def test_what_is_no_schema_is_said_to_be_none(text: str) -> None:
    assert "must be an object" in fault_of(Guide(GuideKind.JSON_SCHEMA, text))


def test_fields_come_in_the_schemas_order() -> None:
    fields = {"z": {"type": "null"}, "a": {"type": "null"}}
    guide = Guide(GuideKind.JSON_SCHEMA, json.dumps({"type": "object", "properties": fields, "required": ["z", "a"]}))
    assert lets_through(guide, '{"z":null,"a":null}')
    assert not lets_through(guide, '{"a":null,"z":null}')


@pytest.mark.parametrize("text", ['{"minimum": NaN, "type": "number"}', '{"maxLength": 1e400, "type": "string"}'])
def test_numbers_that_json_has_not_are_refused(text: str) -> None:
    assert fault_of(Guide(GuideKind.JSON_SCHEMA, text))
