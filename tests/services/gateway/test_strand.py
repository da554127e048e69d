"""An answer that is broken off anywhere and gone on with reads as one that was not."""

import asyncio
import random
from itertools import pairwise

import pytest

from mesh.requests import FinishReason, Frame
from services.gateway.journal import Journal
from services.gateway.strand import Prepared, Strand
from tests.services.gateway.test_answer import EOS, prepared
from tests.services.gateway.tiny_tokenizers import byte_level

Told = tuple[str, tuple[int, ...]]
LETTERS = byte_level().encode("aaab 🐦é").ids  # some of them parts of characters


def strand(stops: tuple[str, ...], received: tuple[int, ...] = ()) -> Strand:
    """At a gateway that has it from this client."""
    asked: Prepared = prepared()
    one = Strand(0, Journal("k", "m", asked.question, asyncio.Event()), asked, stops)
    one.restore(received)
    return one


def told(one: Strand, tokens: tuple[int, ...], *, to_the_end: bool) -> Told:
    """Text and tokens that a client gets of an answer whose worker has made these."""
    text, ids = "", one.journal.tokens[:]
    if one.ended:
        return text, tuple(ids)
    if one.journal.epoch == 0:
        one.journal.grant()
    for seq in range(len(ids), len(tokens)):
        last = to_the_end and seq == len(tokens) - 1
        one.journal.accept(Frame("k", 1, seq, (tokens[seq],), FinishReason.LENGTH if last else None))
        if delta := one.read():
            text, ids = text + delta.text, [*ids, *delta.tokens]
        if one.ended:
            break
    return text, tuple(ids)


@pytest.mark.parametrize("seed", range(40))
def test_wherever_it_was_broken_off_text_tokens_and_end_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    tokens = tuple(chance.choices(LETTERS, k=chance.randint(2, 14)))
    stops = tuple("".join(chance.choices("ab 🐦", k=chance.randint(1, 3))) for _ in range(chance.randint(0, 2)))
    if chance.random() < 0.3:
        tokens = (*tokens, EOS)
    whole = strand(stops)
    text, ids = told(whole, tokens, to_the_end=True)
    for cut in range(len(ids) + 1):
        broken = strand(stops)
        before, had = told(broken, tokens[:cut], to_the_end=False)
        rest = strand(stops, had)
        after, have = told(rest, tokens, to_the_end=True)
        if cut == len(tokens) and not broken.ended:
            continue  # it ends with a frame of its own, and no token
        assert (before + after, have) == (text, ids)
        assert (rest.ended, rest.stop, rest.seen) == (True, whole.stop, len(ids))


@pytest.mark.parametrize("seed", range(5))
def test_it_may_be_broken_off_again_and_again(seed: int) -> None:
    chance = random.Random(seed)
    tokens = tuple(chance.choices(LETTERS, k=20))
    text, ids = told(strand(("ab 🐦",)), tokens, to_the_end=True)
    cuts = sorted({0, *chance.sample(range(1, 20), 6), 20})
    read = ""
    have: tuple[int, ...] = ()
    for _, cut in pairwise(cuts):
        more, have = told(strand(("ab 🐦",), have), tokens[:cut], to_the_end=cut == len(tokens))
        read += more
    assert (read, have) == (text, ids)
