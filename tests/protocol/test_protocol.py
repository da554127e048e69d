"""Every interleaving of a request that moves, with what may go wrong: its answer is whole, has one owner, and ends.
Without any one of the rules, it is not so."""

import pytest

from tests.protocol.search import search
from tests.protocol.world import Rules, Scope

KV = ("kv",)
LOST = ("break", "die", "freeze", "crash")
ONE_MOVE = Scope(workers=2, length=3, moves=1, faults=1)
NO_MOVE = Scope(workers=2, length=3, moves=0, faults=2)


@pytest.mark.parametrize(
    ("scope", "at_least"),
    [
        pytest.param(Scope(workers=3, length=2, moves=1, faults=1), 50_000, id="a move, a fault"),
        pytest.param(Scope(workers=3, length=2, moves=2, faults=0), 20_000, id="two moves, back too"),
        pytest.param(Scope(workers=3, length=2, moves=2, faults=1, kinds=KV, of=("die",)), 10_000, id="and a death"),
        pytest.param(NO_MOVE, 5_000, id="no move, two faults"),
        pytest.param(Scope(workers=2, length=3, moves=1, faults=1, log=(1,)), 10_000, id="a client that has come back"),
    ],
)
def test_whatever_happens_the_answer_is_whole_has_one_owner_and_ends(scope: Scope, at_least: int) -> None:
    found = search(scope)
    assert not found.wrong, "\n".join((found.wrong, *found.trace))
    assert found.states > at_least


@pytest.mark.slow
@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(Scope(workers=2, length=2, moves=2, faults=1), id="two moves, a fault"),
        pytest.param(Scope(workers=2, length=2, moves=1, faults=2), id="a move, two faults"),
        pytest.param(Scope(workers=3, length=3, moves=2, faults=1, kinds=KV, of=LOST), id="three workers, two moves"),
        pytest.param(Scope(workers=2, length=4, moves=2, faults=0, queue=4), id="a longer answer"),
    ],
)
@pytest.mark.timeout(3600)
def test_it_is_so_in_larger_searches(scope: Scope) -> None:
    found = search(scope)
    assert not found.wrong, "\n".join((found.wrong, *found.trace))


@pytest.mark.parametrize(
    ("without", "scope", "wrong"),
    [
        ("fence", ONE_MOVE, "was read, and"),
        ("truncation", NO_MOVE, "was read, and"),
        ("replay", ONE_MOVE, "stuck"),
        ("new_epoch", ONE_MOVE, "stuck"),
        ("again", ONE_MOVE, "stuck"),
        ("release", ONE_MOVE, "stuck"),
    ],
)
def test_without_any_one_rule_it_is_not_so(without: str, scope: Scope, wrong: str) -> None:
    found = search(scope._replace(rules=Rules()._replace(**{without: False})))
    assert wrong in found.wrong
    assert found.trace
