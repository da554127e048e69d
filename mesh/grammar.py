"""What a guide means to llguidance, and what that has to say against one. Compiling for a tokenizer is the worker's."""

import json
from functools import lru_cache

from llguidance import LLMatcher, LLParserLimits

from mesh.requests import Guide, GuideKind

ANY_OBJECT = '{"type":"object"}'
LIMITS = LLParserLimits(verbose_errors=False)  # its errors would hold the whole grammar else; its bounds as they are
KEPT = 256  # verdicts; most clients send the same schema with every request


def grammar_of(guide: Guide) -> str:
    """The guide in llguidance's own words; ValueError for a schema that is not JSON."""
    if guide.kind is GuideKind.REGEX:
        return LLMatcher.grammar_from_regex(guide.text)
    schema = ANY_OBJECT if guide.kind is GuideKind.JSON_OBJECT else guide.text
    json.loads(schema)
    return LLMatcher.grammar_from_json_schema(schema)


@lru_cache(KEPT)
def fault_of(guide: Guide) -> str:
    """Why no answer can be guided so, in the library's words; empty when one can. Takes a thread's time."""
    try:
        return LLMatcher.validate_grammar(grammar_of(guide), limits=LIMITS).strip()
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
