"""Text of tokens one by one is the text of all at once: no character split, no space lost or made up."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.gateway.spelling import Speller, Spelling
from tests.services.gateway.tiny_tokenizers import BYTES, KINDS, byte_level, end_id, sentence_piece

SPELLINGS = {name: Spelling(make()) for name, make in KINDS.items()}
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KNOWN = st.text("the curlew größe, 鳥が飛ぶ 🐦👩🏽‍🚀\ufffd\u0301\n", max_size=20)
TEXTS = UNICODE | KNOWN
BIRD = "鳥".encode()
each_kind = pytest.mark.parametrize("kind", KINDS)


def spelled(kind: str, prompt: list[int], answer: list[int]) -> list[str]:
    """The answer's pieces, one a token and one at its end."""
    speller = Speller(SPELLINGS[kind], prompt)
    return [*(speller.step(token) for token in answer), speller.finish()]


def decoded(kind: str, ids: list[int]) -> str:
    """What the tokenizer itself says of all of them, but a run of byte tokens is read as UTF-8 is: `tokenizers`
    makes every byte of a run U+FFFD when one of them is wrong."""
    tokenizer = KINDS[kind]()
    known = [token for token in ids if tokenizer.id_to_token(token) is not None and token != end_id(tokenizer)]
    names = [str(tokenizer.id_to_token(token)) for token in known]
    if kind not in ("sentence piece", "gemma"):
        return str(tokenizer.decode(known))
    text, done = "", 0
    for in_run, group in itertools.groupby(zip(known, names, strict=True), key=lambda one: one[1] in BYTES):
        run = [name for _, name in group]
        done += len(run)
        if in_run:
            text += bytes(BYTES.index(name) for name in run).decode("utf-8", "replace")
        else:
            before = known[: done - len(run)][-1:]
            text += tokenizer.decode([*before, *known[done - len(run) : done]])[len(tokenizer.decode(before)) :]
    return text


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """Its tokens."""
    return list(tokenizer.encode(text).ids)


@each_kind
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_the_pieces_of_any_text_are_what_the_tokenizer_decodes(kind: str, text: str) -> None:
    ids = encoded(KINDS[kind](), text)
    assert "".join(spelled(kind, [], ids)) == KINDS[kind]().decode(ids)


@pytest.mark.parametrize("kind", ["byte level", "sentence piece", "gemma"])
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_where_the_tokenizer_loses_nothing_the_text_comes_back_in_whole_characters(kind: str, text: str) -> None:
    pieces = spelled(kind, [], encoded(KINDS[kind](), text))
    assert "".join(pieces) == text
    assert "".join(pieces).count("\ufffd") == text.count("\ufffd")


@each_kind
@settings(deadline=None, max_examples=60)
@given(text=TEXTS, data=st.data())
def test_prompt_and_answer_meet_anywhere_even_inside_a_character(kind: str, text: str, data: st.DataObject) -> None:
    ids = encoded(KINDS[kind](), text)
    cut = data.draw(st.integers(0, len(ids)))
    prompt = "".join(spelled(kind, [], ids[:cut])[:-1])  # without what is unfinished
    assert prompt + "".join(spelled(kind, ids[:cut], ids[cut:])) == KINDS[kind]().decode(ids)


@each_kind
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_whatever_the_ids_are_each_token_adds_to_the_text(kind: str, data: st.DataObject) -> None:
    """A model may say anything: broken characters, special tokens, ids beyond the vocabulary."""
    size = KINDS[kind]().get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size + 3), max_size=24))
    cut = data.draw(st.integers(0, len(ids)))
    prompt = "".join(spelled(kind, [], ids[:cut])[:-1])
    assert prompt + "".join(spelled(kind, ids[:cut], ids[cut:])) == decoded(kind, ids)


@each_kind
def test_a_prompt_that_ends_with_many_special_tokens_still_tells_of_the_space(kind: str) -> None:
    tokenizer = KINDS[kind]()
    first, second = encoded(tokenizer, "the curlew")[:1], encoded(tokenizer, "the sea")[-1:]
    specials = [end_id(tokenizer)] * 20
    assert spelled(kind, [*first, *specials], second) == spelled(kind, first, second)


def byte(value: int) -> int:
    """The byte's own token of sentence_piece()."""
    found = sentence_piece().token_to_id(BYTES[value])
    assert found is not None
    return found


def test_a_character_of_byte_tokens_comes_with_its_last_byte() -> None:
    pieces = spelled("sentence piece", encoded(sentence_piece(), "the"), [byte(one) for one in BIRD * 2])
    assert pieces == ["", "", "鳥", "", "", "鳥", ""]


def test_a_character_that_is_broken_off_spoils_none_beside_it() -> None:
    """Where `tokenizers` decodes four U+FFFD, and its DecodeStream gives up."""
    sea = encoded(sentence_piece(), "sea")[0]
    pieces = spelled("sentence piece", [], [*map(byte, BIRD), byte(BIRD[0]), sea])
    assert "".join(pieces) == "鳥\ufffd" + sentence_piece().decode([sea, sea])[len(sentence_piece().decode([sea])) :]


def test_an_answer_that_ends_inside_a_character_says_so_at_its_end() -> None:
    ids = encoded(byte_level(), "鵺")[:-1]
    assert spelled("byte level", [], ids) == [""] * len(ids) + ["\ufffd"]
    speller = Speller(SPELLINGS["byte level"])
    assert [speller.step(ids[0]), speller.finish(), speller.finish()] == ["", "\ufffd", ""]


def test_an_added_token_is_spelled_as_it_is_written() -> None:
    ids = encoded(byte_level(), "the<tool> é sea")
    assert "".join(spelled("byte level", [], ids)) == "the<tool> é sea"


def test_pieces_come_token_by_token_and_not_at_the_end() -> None:
    for kind, make in KINDS.items():
        ids = encoded(make(), "the curlew flies over the sea")
        assert all(spelled(kind, ids[:1], ids[1:])[:-1]), kind


@each_kind
@settings(deadline=None, max_examples=30)
@given(text=KNOWN)
def test_a_token_by_itself_is_what_it_adds_to_others_or_nothing_when_it_is_part_of_a_character(
    kind: str, text: str
) -> None:
    tokenizer, spelling = KINDS[kind](), SPELLINGS[kind]
    for token in encoded(tokenizer, text):
        alone = spelling.alone(token)
        assert "\ufffd" not in alone
        pair = tokenizer.decode([token, token])
        if "\ufffd" not in pair and spelling.spelled(token) != b"":
            assert pair.endswith(alone)
    end = end_id(tokenizer)
    assert spelling.alone(end) == tokenizer.id_to_token(end)
    assert spelling.alone(10**6) == ""
