"""What is guessed from a sequence's own past."""

from hypothesis import given
from hypothesis import strategies as st

from services.worker.engine.lookup import NEWEST, Lookup

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def guess(tokens: list[int], most: int, *, patient: bool = True) -> tuple[int, ...]:
    """By a lookup that has seen nothing else; `patient`: that has been right for a while."""
    lookup = Lookup()
    if patient:
        lookup.judged(64, 64)
    return lookup.guess(tokens, most)


def test_what_followed_last_time_is_guessed() -> None:
    assert guess([1, 2, 3, 9, 8, 1, 2, 3, 5, 6, 7, 4, 1, 2, 3], 4) == (5, 6, 7, 4)


def test_a_run_that_never_came_before_has_no_guess() -> None:
    assert guess([1, 2, 3, 4, 5, 6], 4) == ()
    assert guess([1, 2], 4) == ()
    assert guess([], 4) == ()


def test_a_period_goes_round_as_often_as_wanted() -> None:
    assert guess([5, 5, 5, 5], 5) == (5, 5, 5, 5, 5)
    assert guess([1, 2, 3, 1, 2, 3], 7) == (1, 2, 3, 1, 2, 3, 1)


def test_guesses_grow_while_they_are_right_and_shrink_when_they_are_not() -> None:
    lookup, tokens, lengths = Lookup(), [5] * 8, []
    for right in (1, 2, 4, 0, 1):
        lengths.append(len(lookup.guess(tokens, 8)))
        lookup.judged(lengths[-1], min(right, lengths[-1]))
    assert lengths == [1, 2, 4, 8, 1]


@given(TOKENS, st.integers(1, 8), st.lists(st.integers(0, 40)))
def test_a_guess_is_what_followed_the_latest_earlier_run_however_the_tokens_came(
    tokens: list[int], most: int, stops: list[int]
) -> None:
    lookup = Lookup()
    lookup.judged(64, 64)
    for stop in sorted(stops):
        lookup.guess(tokens[:stop], most)
    guessed = lookup.guess(tokens, most)
    earlier = [at for at in range(NEWEST, len(tokens)) if tokens[at - NEWEST : at] == tokens[-NEWEST:]]
    assert bool(guessed) == bool(earlier)
    if earlier:
        told = list(tokens)
        for token in guessed:
            assert token == told[earlier[-1] + len(told) - len(tokens)]
            told.append(token)
