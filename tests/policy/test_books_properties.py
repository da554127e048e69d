"""Whatever has happened: what the books remember is what they would find anew, and nobody is overlooked."""

import random
from dataclasses import replace

import pytest

from policy.decide import decide
from policy.index import Index
from tests.policy.history import KNOBS, History, anew

THINGS = (
    ("ask",) * 6 + ("complete",) * 5 + ("leave", "leave", "wait", "wait", "report", "hold", "update", "turn", "fail")
)
STEPS = 80
HISTORIES = pytest.mark.parametrize("seed", range(24))


def shown(index: Index) -> tuple[object, ...]:
    """What an index says, in an order of its own."""
    return (
        index.cluster,
        sorted((seat.spot, seat.replica, seat.member) for seat in index.replicas.everywhere()),
        index.outdated,
        index.nascent,
        set(index.draining()),
        index.sizes(),
        index.memory.accounts,
        list(index.memory.freest(-1000)),
        list(index.memory.roomiest(-1000)),
        index.rest.common.at_s,
        index.rest.own.at_s,
        index.rest.over.at_s,
    )


@HISTORIES
def test_an_index_that_was_kept_is_one_that_is_made_anew(seed: int) -> None:
    history, chance = History(), random.Random(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(420))
        view, decision = history.decide()
        assert shown(view.index) == shown(anew(view).index)
        history.act(decision)


@HISTORIES
def test_who_is_not_looked_at_would_have_fared_as_before(seed: int) -> None:
    history, chance = History(), random.Random(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(420))
        view, decision = history.decide()
        everybody = decide(anew(view), history.now, KNOBS)
        assert decision.actions == everybody.actions
        assert decision.claims == everybody.claims
        assert decision.look_again_s == everybody.look_again_s
        history.act(decision)


@HISTORIES
def test_a_decision_leaves_the_view_as_it_was(seed: int) -> None:
    history, chance = History(), random.Random(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(420))
        view, decision = history.decide()
        before = shown(view.index)
        assert decide(view, history.now, KNOBS) == decision
        assert shown(view.index) == before
        history.act(decision)


@HISTORIES
def test_facts_that_come_in_another_order_end_in_the_same_index_and_decision(seed: int) -> None:
    history, chance = History(), random.Random(seed)
    for _ in range(STEPS):
        history.happen(chance.choice(THINGS), chance.randrange(420))
        history.act(history.decide()[1])
    view, _ = history.decide()
    members, seen = list(view.cluster.members.items()), Index()
    chance.shuffle(members)
    for count in range(1, len(members) + 1):
        seen.observe(replace(view.cluster, members=dict(members[:count])))
    at_once = Index()
    at_once.observe(view.cluster)
    assert shown(seen)[1:] == shown(at_once)[1:]
    twin = replace(anew(view), cluster=seen.cluster)
    assert decide(twin, history.now, KNOBS).actions == decide(anew(view), history.now, KNOBS).actions
