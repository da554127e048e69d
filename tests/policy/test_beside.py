"""What a replica loses to others that run on its device."""

from dataclasses import replace

import pytest

from policy.actions import Unload
from policy.beside import beside_s
from policy.books import Books
from policy.candidates import near_candidates
from policy.decide import decide
from policy.forecast import coming
from policy.knobs import Knobs
from tests.policy.scene import REPLICA, cluster, model, replica, request, store, worker

KNOBS = Knobs(prefill_token_s=0.01)
NAMES = ("a", "b", "m", "x", "y")


def books(*prompts: int, busy_on: tuple[str, str] = ("x", "")) -> Books:
    """On w1 an idle a, on w2 an idle b, both asked at the same moment, and beside each something that runs, or not;
    requests for m with these prompts."""
    made = Books()
    beside = [[replica(busy, running=1)] if busy else [] for busy in busy_on]
    workers = [
        worker(name, replica(idle), *others, memory=REPLICA * (1 + len(others)))
        for name, idle, others in zip(("w1", "w2"), ("a", "b"), beside, strict=True)
    ]
    made.observe(cluster([*workers, store("s1", *(f"{name}@1" for name in NAMES))], map(model, NAMES)))
    for name in ("a", "b"):
        made.demand.arrived(name, 10.0)
    decide(made.view(1000.0), 1000.0, KNOBS)
    for n, tokens in enumerate(prompts):
        made.arrived(replace(request(f"r{n}", since_s=1000.0), prompt_tokens=tokens))
    return made


def test_each_prompt_waits_for_those_before_it_once_more_for_each_busy_replica() -> None:
    view, entry = books(100, 300).view(1000.0), model("m")
    able = near_candidates(view, entry, 1000.0, KNOBS)
    costs = {one.member.id: beside_s(view, entry, one, 1000.0, KNOBS) for one in able}
    come = 2.0 + coming(view.demand.histories["m"], 1000.0, able[0].estimate_s).mean
    prompt_s = 2.0
    assert costs == {"w1": pytest.approx(prompt_s * come * (come + 1.0) / 2.0), "w2": 0.0}


def test_of_two_that_are_worth_as_much_the_one_beside_nothing_that_runs_leaves() -> None:
    for busy_on, leaves in ((("x", ""), "b"), (("", "y"), "a")):
        actions = decide(books(100, busy_on=busy_on).view(1000.0), 1000.0, KNOBS).actions
        assert [one.spot.model for one in actions if isinstance(one, Unload)] == [leaves]


def test_nobody_who_waits_loses_anything() -> None:
    view, entry = books().view(1000.0), model("m")
    assert [beside_s(view, entry, one, 1000.0, KNOBS) for one in near_candidates(view, entry, 1000.0, KNOBS)] == [
        pytest.approx(0.0)
    ] * 2
