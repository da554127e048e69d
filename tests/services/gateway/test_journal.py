"""The journal: whatever arrives, its tokens are a prefix of the answer, and each is there once."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import Broken, Unreachable
from mesh.requests import FinishReason, Frame, Sampling, TokenLogprob
from services.gateway.journal import MOST_NEWS, Journal, News, Question

SAMPLING = Sampling(64, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 1, ())
KEY = "gateway.7/0"


def journal() -> Journal:
    """One that has been granted once: its epoch is 1."""
    one = Journal(KEY, "m", Question("d1", (1, 2, 3), SAMPLING), asyncio.Event())
    one.grant()
    return one


def frame(epoch: int, seq: int, *tokens: int, finish: FinishReason | None = None) -> Frame:
    """What a worker says of the request."""
    return Frame(KEY, epoch, seq, tokens, finish)


@dataclass(frozen=True, slots=True)
class Slice:
    """A frame that some owner sent, with part of the answer."""

    epochs_ago: int
    start: int
    end: int


GRANT = "grant"
SLICES = st.builds(Slice, st.integers(0, 2), st.integers(0, 12), st.integers(0, 12))


def sent(answer: tuple[int, ...], piece: Slice, epoch: int) -> Frame:
    """The frame with that part; the last token brings the finish."""
    start, end = min(piece.start, len(answer)), min(piece.end, len(answer))
    finish = FinishReason.STOP if end == len(answer) and start <= end else None
    return frame(epoch - piece.epochs_ago, start, *answer[start:end], finish=finish)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=12), st.lists(st.one_of(st.just(GRANT), SLICES), max_size=40)
)
def test_any_order_of_late_doubled_and_superseded_frames_gives_a_prefix_and_in_the_end_all(
    tokens: list[int], happenings: list[str | Slice]
) -> None:
    answer, one = tuple(tokens), journal()
    for happening in happenings:
        before = list(one.tokens)
        if isinstance(happening, Slice):
            one.accept(sent(answer, happening, one.epoch))
        elif not one.finish:
            assert one.grant().log == tuple(before)
        assert one.tokens[: len(before)] == before
        assert tuple(one.tokens) == answer[: len(one.tokens)]
        assert (one.finish is None) or tuple(one.tokens) == answer
    for position in range(len(one.tokens), len(answer)):
        assert one.accept(sent(answer, Slice(0, position, position + 1), one.epoch))
    assert tuple(one.tokens) == answer
    assert one.finish in (FinishReason.STOP, None)


def test_frames_of_an_older_epoch_change_nothing() -> None:
    one = journal()
    one.grant()
    assert not one.accept(frame(1, 0, 5, 6, finish=FinishReason.STOP))
    assert (one.tokens, one.finish) == ([], None)


def test_frames_of_an_epoch_that_was_never_granted_change_nothing() -> None:
    one = journal()
    assert not one.accept(frame(2, 0, 5))
    assert one.tokens == []


def test_an_overlap_is_trimmed() -> None:
    one = journal()
    assert one.accept(frame(1, 0, 5, 6))
    assert one.accept(frame(1, 1, 6, 7))
    assert one.tokens == [5, 6, 7]


def test_what_would_leave_a_gap_is_not_taken() -> None:
    one = journal()
    assert not one.accept(frame(1, 1, 6, finish=FinishReason.STOP))
    assert (one.tokens, one.finish) == ([], None)


def test_a_finish_without_tokens_counts() -> None:
    one = journal()
    one.accept(frame(1, 0, 5))
    assert one.accept(frame(1, 1, finish=FinishReason.LENGTH))
    assert (one.tokens, one.finish) == ([5], FinishReason.LENGTH)


def test_after_the_finish_nothing_counts() -> None:
    one = journal()
    one.accept(frame(1, 0, 5, finish=FinishReason.STOP))
    assert not one.accept(frame(1, 1, 6))
    one.fail(1, Broken("late"))
    assert (one.tokens, one.finish, one.failure) == ([5], FinishReason.STOP, None)


def test_a_grant_carries_all_that_is_asked_and_answered_so_far() -> None:
    one = journal()
    one.accept(frame(1, 0, 5, 6))
    grant = one.grant()
    assert (grant.key, grant.epoch, grant.model, grant.digest, grant.prompt) == (KEY, 2, "m", "d1", (1, 2, 3))
    assert (grant.log, grant.sampling) == ((5, 6), SAMPLING)


def test_before_its_first_token_a_request_may_be_asked_of_another_version_in_other_tokens_and_then_no_more() -> None:
    one = journal()
    one.rewrite(Question("d2", (9,), SAMPLING))
    grant = one.grant()
    assert (grant.epoch, grant.digest, grant.prompt, grant.log) == (2, "d2", (9,), ())
    one.accept(frame(2, 0, 5))
    with pytest.raises(AssertionError):
        one.rewrite(Question("d1", (1, 2, 3), SAMPLING))


def test_the_failure_of_an_older_epoch_is_ignored_and_a_grant_forgets_the_current_one() -> None:
    one = journal()
    one.grant()
    one.fail(1, Broken("old"))
    assert one.failure is None
    one.fail(2, Broken("current"))
    assert one.failure is not None
    one.grant()
    assert one.failure is None


def test_news_are_the_tokens_past_those_that_are_known() -> None:
    one = journal()
    assert one.news(0) is None
    one.accept(frame(1, 0, 5, 6, 7))
    assert one.news(0) == News((5, 6, 7), (), last=False)
    assert one.news(2) == News((7,), (), last=False)
    assert one.news(3) is None


def test_whatever_is_news_wakes_who_waits_and_nothing_else_does() -> None:
    one = journal()
    for happening, wakes in (
        (lambda: one.accept(frame(1, 0, 5)), True),
        (lambda: one.accept(frame(1, 0, 5)), False),
        (lambda: one.accept(frame(1, 1, 6, finish=FinishReason.STOP)), True),
        (lambda: one.fail(1, Broken("late")), False),
    ):
        one.changed.clear()
        happening()
        assert one.changed.is_set() == wakes
    two = journal()
    two.fail(1, Broken("gone"))
    assert two.changed.is_set()


def test_the_end_is_news_though_it_comes_without_a_token() -> None:
    one = journal()
    one.accept(frame(1, 0, 5, finish=FinishReason.STOP))
    assert one.news(0) == News((5,), (), last=True)
    assert one.news(1) == News((), (), last=True)


def test_tokens_come_before_the_failure_that_followed_them() -> None:
    one = journal()
    one.accept(frame(1, 0, 5))
    one.fail(1, Unreachable("lost"))
    assert one.news(0) == News((5,), (), last=False)
    with pytest.raises(Unreachable, match="lost"):
        one.news(1)


def test_likelihoods_keep_step_with_their_tokens_however_frames_overlap_and_are_told_once() -> None:
    one, likely = journal(), [TokenLogprob(-float(n)) for n in range(5)]
    one.accept(Frame(KEY, 1, 0, (10, 11), logprobs=tuple(likely[:2])))
    one.grant()
    one.accept(Frame(KEY, 2, 1, (11, 12, 13), logprobs=tuple(likely[1:4])))
    assert one.news(0) == News((10, 11, 12, 13), tuple(likely[:4]), last=False)
    one.accept(Frame(KEY, 2, 3, (13, 14), FinishReason.LENGTH, logprobs=tuple(likely[3:])))
    assert one.news(4) == News((14,), (likely[4],), last=True)
    assert one.news(5) == News((), (), last=True)


def test_who_has_not_read_for_a_while_is_told_all_in_portions() -> None:
    one, count = journal(), 2 * MOST_NEWS + 3
    likely = tuple(TokenLogprob(-float(n)) for n in range(count))
    one.accept(Frame(KEY, 1, 0, tuple(range(count)), FinishReason.LENGTH, logprobs=likely))
    told: list[News] = []
    while not (told and told[-1].last):
        one.changed.clear()
        news = one.news(sum(len(portion.tokens) for portion in told))
        assert news
        assert one.changed.is_set() is not news.last  # who waits for more need not wait
        told.append(news)
    assert [len(portion.tokens) for portion in told] == [MOST_NEWS, MOST_NEWS, 3]
    assert sum((portion.tokens for portion in told), ()) == tuple(range(count))
    assert sum((portion.logprobs for portion in told), ()) == likely
