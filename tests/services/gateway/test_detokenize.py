"""Text from tokens as they come: whole characters, nothing past a stop, nothing lost."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.detokenize import Detokenizer
from services.gateway.spelling import Spelling
from tests.services.gateway.tiny_tokenizers import KINDS, byte_level, end_id

SPELLINGS = {name: Spelling(make()) for name, make in KINDS.items()}
BYTE_LEVEL = SPELLINGS["byte level"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.text("thea slö鳥", max_size=24)  # few letters: stops and their beginnings happen
STOPS = st.lists(st.text("thea slö鳥", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def split(ids: list[int], cuts: list[int]) -> list[list[int]]:
    """The ids in the batches in which a worker's steps might bring them; some are empty."""
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


def told(kind: str, ids: list[int], cuts: list[int], stops: list[str]) -> tuple[str, str | None, int]:
    """All the text, the stop, and the tokens used, fed batch by batch."""
    detokenizer, text, used = Detokenizer(SPELLINGS[kind], stops), "", 0
    for batch in split(ids, cuts):
        piece = detokenizer.feed(batch)
        text, used = text + piece.text, used + piece.tokens
        if piece.stop is not None:
            return text, piece.stop, used
    return text + detokenizer.finish(), None, used


def expected(kind: str, ids: list[int], stops: list[str]) -> tuple[str, str | None, int]:
    """The same by looking at the whole text so far after each token."""
    tokenizer = KINDS[kind]()
    for used in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:used]).rstrip("\ufffd")
        if found := [(text.index(stop), -len(stop), stop) for stop in stops if stop in text]:
            at, _, stop = min(found)
            return text[:at], stop, used
    return tokenizer.decode(ids), None, len(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS, cuts=CUTS)
def test_the_pieces_together_are_what_the_tokenizer_decodes(kind: str, text: str, cuts: list[int]) -> None:
    ids = KINDS[kind]().encode(text).ids
    assert told(kind, ids, cuts, []) == (KINDS[kind]().decode(ids), None, len(ids))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=100)
@given(text=WORDS, stops=STOPS, cuts=CUTS)
def test_the_text_ends_before_the_first_stop_wherever_the_batches_break(
    kind: str, text: str, stops: list[str], cuts: list[int]
) -> None:
    ids = KINDS[kind]().encode(text).ids
    found = told(kind, ids, cuts, stops)
    assert found == expected(kind, ids, stops)
    assert not any(stop in found[0] for stop in stops)


@pytest.mark.parametrize("stop", ["time", "upon a", "a time", " "])
def test_a_stop_that_several_tokens_make_is_never_shown(stop: str) -> None:
    text, detokenizer, shown = "once upon a time", Detokenizer(BYTE_LEVEL, [stop]), ""
    for token in byte_level().encode(text).ids:
        piece = detokenizer.feed([token])
        shown += piece.text
        assert text.partition(stop)[0].startswith(shown)
        if piece.stop:
            break
    assert (shown, piece.stop) == (text.partition(stop)[0], stop)


def test_text_that_only_began_like_a_stop_is_shown_in_the_end() -> None:
    detokenizer = Detokenizer(BYTE_LEVEL, ["sea of"])
    shown = detokenizer.feed(byte_level().encode("the sea").ids).text
    assert shown == "the "
    assert detokenizer.finish() == "sea"
    assert detokenizer.finish() == ""


def test_text_that_is_held_back_survives_a_step_without_text() -> None:
    """The last step of an answer often brings only the end-of-sequence token."""
    detokenizer = Detokenizer(BYTE_LEVEL, ["sea of"])
    detokenizer.feed(byte_level().encode("the sea").ids)
    assert detokenizer.feed([]).text == ""
    assert detokenizer.finish() == "sea"


def test_special_tokens_are_no_text() -> None:
    end = end_id()
    ids = [*byte_level().encode("the").ids, end, *byte_level().encode(" sea").ids]
    assert told("byte level", ids, [], []) == ("the sea", None, len(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_a_continuation_keeps_the_space_between_prompt_and_answer(kind: str) -> None:
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode("the curlew flies over the sea").ids
    for cut in range(1, len(ids)):
        detokenizer = Detokenizer(SPELLINGS[kind], [], ids[:cut])
        answer = "".join(detokenizer.feed([token]).text for token in ids[cut:])
        assert tokenizer.decode(ids[:cut]) + answer == tokenizer.decode(ids)


def test_an_answer_that_ends_inside_a_character_has_a_replacement_for_it_behind_what_was_held_back() -> None:
    detokenizer = Detokenizer(BYTE_LEVEL, ["sea of"])
    assert detokenizer.feed(byte_level().encode("the sea").ids).text == "the "
    assert detokenizer.feed(byte_level().encode("鵺").ids[:1]).text == ""
    assert detokenizer.finish() == "sea\ufffd"


def test_without_a_tokenizer_there_is_no_text() -> None:
    detokenizer = Detokenizer(None, ["a"])
    piece = detokenizer.feed([1, 2, 3])
    assert (piece.text, piece.tokens, piece.stop) == ("", 3, None)
    assert detokenizer.finish() == ""
