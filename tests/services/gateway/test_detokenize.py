"""Text from tokens as they come: whole characters, nothing past a stop, nothing lost."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from services.gateway.detokenize import Detokenizer

CORPUS = ["the curlew flies over the sea and the hill", "once upon a time the größe was calm, 鳥が飛ぶ 🐦"] * 20
END = "<|end|>"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=30)
WORDS = st.text("abc <|", max_size=24)  # few letters: stops and their beginnings happen
STOPS = st.lists(st.text("abc <|", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(0, 40), max_size=6)


@cache
def byte_level() -> Tokenizer:
    """Every byte is a token at least, as in GPT-2 and Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def end_id() -> int:
    """The token that ends an answer."""
    found = byte_level().token_to_id(END)
    assert found is not None
    return found


@cache
def sentence_piece() -> Tokenizer:
    """A space belongs to the word that follows, and the first one is dropped, as in Llama 2."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def split(ids: list[int], cuts: list[int]) -> list[list[int]]:
    """The ids in the batches in which a worker's steps might bring them; some are empty."""
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


def told(ids: list[int], cuts: list[int], stops: list[str]) -> tuple[str, str | None, int]:
    """All the text, the stop, and the tokens used, fed batch by batch."""
    detokenizer, text, used = Detokenizer(byte_level(), stops), "", 0
    for batch in split(ids, cuts):
        piece = detokenizer.feed(batch)
        text, used = text + piece.text, used + piece.tokens
        if piece.stop is not None:
            return text, piece.stop, used
    return text + detokenizer.finish(), None, used


def expected(ids: list[int], stops: list[str]) -> tuple[str, str | None, int]:
    """The same by looking at the whole text so far after each token."""
    for used in range(1, len(ids) + 1):
        text = byte_level().decode(ids[:used]).rstrip("\ufffd")
        if found := [(text.index(stop), -len(stop), stop) for stop in stops if stop in text]:
            at, _, stop = min(found)
            return text[:at], stop, used
    return byte_level().decode(ids), None, len(ids)


@settings(deadline=None)
@given(TEXTS, CUTS)
def test_the_pieces_together_are_what_the_tokenizer_decodes(text: str, cuts: list[int]) -> None:
    ids = byte_level().encode(text).ids
    assert told(ids, cuts, []) == (byte_level().decode(ids), None, len(ids))
    assert byte_level().decode(ids) == text


@settings(deadline=None, max_examples=300)
@given(WORDS, STOPS, CUTS)
def test_the_text_ends_before_the_first_stop_wherever_the_batches_break(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    ids = byte_level().encode(text).ids
    found = told(ids, cuts, stops)
    assert found == expected(ids, stops)
    assert not any(stop in found[0] for stop in stops)


@settings(deadline=None)
@given(TEXTS)
def test_no_piece_has_half_a_character(text: str) -> None:
    detokenizer = Detokenizer(byte_level(), [])
    assert not any("\ufffd" in detokenizer.feed([token]).text for token in byte_level().encode(text).ids)


@pytest.mark.parametrize("stop", ["time", "upon a", "a time", " "])
def test_a_stop_that_several_tokens_make_is_never_shown(stop: str) -> None:
    text, detokenizer, shown = "once upon a time", Detokenizer(byte_level(), [stop]), ""
    for token in byte_level().encode(text).ids:
        piece = detokenizer.feed([token])
        shown += piece.text
        assert text.partition(stop)[0].startswith(shown)
        if piece.stop:
            break
    assert (shown, piece.stop) == (text.partition(stop)[0], stop)


def test_text_that_only_began_like_a_stop_is_shown_in_the_end() -> None:
    detokenizer = Detokenizer(byte_level(), ["sea of"])
    shown = detokenizer.feed(byte_level().encode("the sea").ids).text
    assert shown == "the "
    assert detokenizer.finish() == "sea"
    assert detokenizer.finish() == ""


def test_text_that_is_held_back_survives_a_step_without_text() -> None:
    """The last step of an answer often brings only the end-of-sequence token."""
    detokenizer = Detokenizer(byte_level(), ["sea of"])
    detokenizer.feed(byte_level().encode("the sea").ids)
    assert detokenizer.feed([]).text == ""
    assert detokenizer.finish() == "sea"


def test_special_tokens_are_no_text() -> None:
    end = end_id()
    ids = [*byte_level().encode("the").ids, end, *byte_level().encode(" sea").ids]
    assert told(ids, [], []) == ("the sea", None, len(ids))


def test_a_continuation_keeps_the_space_between_prompt_and_answer() -> None:
    ids = sentence_piece().encode("the curlew flies over the sea").ids
    whole = sentence_piece().decode(ids)
    for cut in range(1, len(ids)):
        detokenizer = Detokenizer(sentence_piece(), [], ids[:cut])
        answer = "".join(detokenizer.feed([token]).text for token in ids[cut:])
        assert sentence_piece().decode(ids[:cut]) + answer == whole


def test_without_a_tokenizer_there_is_no_text() -> None:
    detokenizer = Detokenizer(None, ["a"])
    piece = detokenizer.feed([1, 2, 3])
    assert (piece.text, piece.tokens, piece.stop) == ("", 3, None)
    assert detokenizer.finish() == ""
