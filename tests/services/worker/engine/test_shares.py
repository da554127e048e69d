from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.engine.shares import Claim, fair_shares, rebalance


def claim(booked: int, share: int, need: int, least: int | None = None, most: int = 10**6) -> Claim:
    return Claim(booked, share, need, booked // 8 if least is None else least, most)


def test_what_an_idle_replica_does_not_need_goes_to_a_busy_one() -> None:
    assert rebalance([claim(80, 80, 150), claim(80, 80, 0)]) == [150, 10]
    assert rebalance([claim(80, 80, 110), claim(80, 80, 0)]) == [110, 50]


def test_each_gets_back_what_it_brought_when_it_needs_it() -> None:
    assert rebalance([claim(80, 150, 150), claim(80, 10, 80)]) == [80, 80]
    assert rebalance([claim(80, 150, 150), claim(80, 10, 30)]) == [130, 30]


def test_those_who_want_more_share_by_what_they_brought() -> None:
    assert rebalance([claim(40, 40, 500), claim(80, 80, 500), claim(120, 120, 0, least=0)]) == [80, 160, 0]


def test_nobody_moves_while_nobody_is_short() -> None:
    assert rebalance([claim(80, 30, 20), claim(80, 130, 40)]) == [30, 130]


def test_what_cannot_grow_or_shrink_is_left_alone() -> None:
    fixed = claim(80, 80, 0, least=80, most=80)
    assert rebalance([fixed, claim(80, 80, 500)]) == [80, 80]


def test_what_a_removed_replica_had_lent_is_taken_back() -> None:
    assert rebalance([claim(80, 100, 90), claim(80, 110, 120)]) == [80, 80]


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    """Replicas whose shares together do not exceed what they brought."""
    booked = draw(st.lists(st.integers(8, 1000), min_size=1, max_size=5))
    left, made = sum(booked), []
    for one in booked:
        share = draw(st.integers(0, left))
        left -= share
        most = draw(st.sampled_from((one, 2 * one, 10**6)))
        made.append(Claim(one, share, draw(st.integers(0, 3000)), one // 8, most))
    return made


@settings(max_examples=60)
@given(claims())
def test_shares_never_exceed_what_was_brought_and_nobody_is_denied_its_own(made: list[Claim]) -> None:
    shares = rebalance(made)
    assert sum(shares) <= sum(one.booked for one in made)
    for one, share in zip(made, shares, strict=True):
        assert share >= min(one.booked, max(one.need, one.least), one.most)
        assert share <= max(one.share, one.most)


@settings(max_examples=60)
@given(claims())
def test_nothing_lies_idle_while_somebody_is_short(made: list[Claim]) -> None:
    shares = rebalance(made)
    fair = fair_shares(made)
    short = [min(one.need, one.most) > share + len(made) for one, share in zip(made, shares, strict=True)]
    if any(short):
        assert sum(fair) > sum(one.booked for one in made) - len(made)
        assert all(share <= mine + len(made) for share, mine in zip(shares, fair, strict=True))  # whole bytes


@settings(max_examples=60)
@given(claims())
def test_dividing_twice_moves_nothing_more(made: list[Claim]) -> None:
    shares = rebalance(made)
    again = [Claim(o.booked, share, o.need, o.least, o.most) for o, share in zip(made, shares, strict=True)]
    assert rebalance(again) == shares
