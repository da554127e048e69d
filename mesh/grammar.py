"""What a guide means to llguidance, and what that has to say against one. Compiling for a tokenizer is the worker's."""

import json
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from mesh.requests import Guide, GuideKind

ANY_OBJECT = '{"type":"object"}'
WHITE_SPACE: Any = {
    "whitespace_pattern": r"[ ]{1,2}|\r?\n[ \t]{0,40}"
}  # without a bound, small models go on with it for ever
OWN_WHITE_SPACE = frozenset({"whitespace_pattern", "whitespace_flexible"})
LIMITS = LLParserLimits(verbose_errors=False)  # its errors would hold the whole grammar else; its bounds as they are
KEPT = 256  # verdicts; most clients send the same schema with every request


def grammar_of(guide: Guide) -> str:
    """The guide in llguidance's own words; ValueError for a schema that is none."""
    if guide.kind is GuideKind.REGEX:
        return LLMatcher.grammar_from_regex(guide.text)
    schema = _parsed(ANY_OBJECT if guide.kind is GuideKind.JSON_OBJECT else guide.text)
    wishes = schema.get("x-guidance")
    own = isinstance(wishes, dict) and OWN_WHITE_SPACE & wishes.keys()
    return LLMatcher.grammar_from_json_schema(schema, defaults=None if own else WHITE_SPACE)


def _parsed(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise ValueError("must be an object, or true")  # noqa: TRY004  it is JSON, of the wrong kind
    return schema


@lru_cache(KEPT)
def fault_of(guide: Guide) -> str:
    """Why no answer can be guided so, in the library's words; empty when one can. Takes a thread's time."""
    try:
        return LLMatcher.validate_grammar(grammar_of(guide), limits=LIMITS).strip()
    except ValueError as error:
        return str(error)
