"""Whether what a client got is what it should have got. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from chaos.heard import Answer, Heard

LIKE = 4  # tokens that must agree beyond a gap, or a repetition, for it to be one


class Found(StrEnum):
    """What can be said of an answer, the best first."""

    WHOLE = "whole"
    LEFT = "left"  # its client went before the end; what it had was right
    LOST = "lost"  # something is missing
    DUPLICATED = "duplicated"  # something came twice
    WRONG = "wrong"  # something is not what it should be


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one question, and why."""

    found: Found
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether its client has nothing to complain of."""
        return self.found in {Found.WHOLE, Found.LEFT}


def judge(heard: Heard, wanted: Heard) -> Verdict:
    """The worst that is true of its answers; `wanted` is what came for the same question in peace."""
    found = [_answer(got, right, heard) for got, right in zip(heard.answers, wanted.answers, strict=True)]
    order = list(Found)
    worst = max(found, key=lambda verdict: order.index(verdict.found))
    if not worst.good:
        return worst
    if heard.failure:
        return Verdict(Found.LOST, heard.failure)
    return Verdict(Found.WRONG, heard.out_of_turn[0]) if heard.out_of_turn else worst


def _answer(got: Answer, right: Answer, heard: Heard) -> Verdict:
    whole = heard.finished is not None
    tokens = _tokens(got.tokens, right.tokens, whole=whole)
    if tokens.good and not right.text.startswith(got.text):
        return Verdict(Found.WRONG, f"the text is {_short(got.text)}, not {_short(right.text)}")
    if not tokens.good or not whole:
        return tokens
    for what, one, other in (
        ("text", got.text, right.text),
        ("finish reason", got.reason, right.reason),
        ("stop text", got.stop_text, right.stop_text),
        ("likeliest tokens", got.likeliest, right.likeliest),
    ):
        if one != other:
            return Verdict(Found.WRONG, f"the {what} differs: {_short(one)}, not {_short(other)}")
    return Verdict(Found.WHOLE)


def _tokens(got: Sequence[int], right: Sequence[int], *, whole: bool) -> Verdict:
    at = next((i for i, (one, other) in enumerate(zip(got, right, strict=False)) if one != other), None)
    if at is None and len(got) <= len(right):
        if len(got) < len(right) and whole:
            return Verdict(Found.LOST, f"it ended after {len(got)} of {len(right)} tokens")
        return Verdict(Found.WHOLE if whole else Found.LEFT)
    at = len(right) if at is None else at
    for shift in range(1, len(got) + len(right)):
        if shift <= at and _agree(got[at:], right[at - shift :]):
            return Verdict(Found.DUPLICATED, f"{shift} tokens came again after {at}")
        if _agree(got[at:], right[at + shift :]):
            return Verdict(Found.LOST, f"{shift} tokens are missing after {at}")
    return Verdict(Found.WRONG, f"token {at} is {list(got[at : at + 3])}, not {list(right[at : at + 3])}")


def _agree(one: Sequence[int], other: Sequence[int]) -> bool:
    length = min(len(one), len(other))
    return length >= LIKE and one[:length] == other[:length]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:40]}…{text[-40:]}"
