"""Waiting though a load could begin: for what runs where the checkpoint lies, or for a slot; through decide."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from mesh.facts import Member, Tier
from policy.actions import Load
from policy.decide import Decision, decide
from policy.knobs import Knobs
from policy.seat import Running
from policy.view import Spot, View
from tests.policy.scene import at, cluster, model, replica, request, store, worker

NOW = 1000.0
RATES = {Tier.ORIGIN: 1.0, Tier.DISK: 5.0, Tier.DRAM: 10.0, Tier.DEVICE: 100.0}  # weights take 10, 2 and 1 s
KNOBS = Knobs(bytes_per_s=RATES, keep_alive_s=1e6, copies=False, init_s=0.0, unload_s=0.0, held_s=4.0)
BUSY, FAR = worker("w1", replica("other", running=1)), worker("w2", node="n2")
STORES = (store("s1", "m@1", "other@1"), store("s2", "other@1", node="n2"))


def decided(
    *members: Member,
    since_s: float = NOW,
    at_s: float = NOW,
    runs: dict[Spot, float] | None = None,
    names: Sequence[str] = ("r",),
    knobs: Knobs = KNOBS,
    patience: Iterable[tuple[str, float]] = (),
) -> Decision:
    """With requests that run since then, and some that wait for m, of what earlier decisions had them wait for."""
    running = {spot: {f"of {spot}": Running(f"of {spot}", placed_s)} for spot, placed_s in (runs or {}).items()}
    waiting = tuple(request(name, since_s=since_s) for name in names)
    facts = cluster([*members, *STORES], [model("m"), model("other")])
    placed = {spot: len(each) for spot, each in running.items()}
    view = View(facts, waiting=waiting, placed=placed, runs=running)
    view.queues.be_patient(patience)
    return decide(view, at_s, knobs)


def loads(decision: Decision) -> list[Spot]:
    return [action.spot for action in decision.actions if isinstance(action, Load)]


def test_a_request_waits_for_what_runs_near_its_checkpoint_when_that_is_sooner_than_a_load_afar() -> None:
    """Three more seconds, and two of loading, against ten."""
    decision = decided(BUSY, FAR, runs={at("w1", "other"): NOW - 1.0})
    assert not decision.actions
    assert decision.look_again_s == NOW + 10.0


def test_it_waits_no_longer_than_the_load_would_have_taken() -> None:
    """However often what it waits for is put off."""
    began = decided(BUSY, FAR, runs={at("w1", "other"): NOW - 1.0})
    assert began.patience == (("r", NOW),)

    def later(at_s: float) -> list[Spot]:
        return loads(decided(BUSY, FAR, at_s=at_s, runs={at("w1", "other"): at_s - 1.0}, patience=began.patience))

    assert later(NOW + 9.0) == []
    assert later(NOW + 10.0) == [at("w2")]


def test_what_has_waited_long_because_no_load_could_begin_is_not_impatient_for_that() -> None:
    """When all is busy, the first memory that comes free is as likely far from the bytes as ever."""
    decision = decided(BUSY, FAR, since_s=NOW - 60.0, runs={at("w1", "other"): NOW - 1.0})
    assert not decision.actions
    assert decision.patience == (("r", NOW),)
    assert decision.look_again_s == NOW + 10.0


def test_it_does_not_wait_where_that_is_hardly_sooner() -> None:
    slow = Knobs(bytes_per_s=RATES, keep_alive_s=1e6, copies=False, init_s=0.0, unload_s=0.0, held_s=8.0)
    assert loads(decided(BUSY, FAR, runs={at("w1", "other"): NOW - 1.0}, knobs=slow)) == [at("w2")]


def test_nobody_waits_for_a_replica_of_which_it_is_not_known_what_runs_there() -> None:
    assert loads(decided(BUSY, FAR)) == [at("w2")]


@pytest.mark.parametrize(("others", "goes"), [(1, []), (99, [at("w2")])])
def test_what_is_on_its_way_there_will_end_too_unless_its_line_is_long(others: int, goes: list[Spot]) -> None:
    """Two seconds of loading, three of answering and two of loading, against ten."""
    line = [request(f"of other {number}", "other", since_s=NOW) for number in range(others)]
    facts = cluster([worker("w1"), FAR, *STORES], [model("m"), model("other")])
    view = View(facts, waiting=(*line, request("r", since_s=NOW)), loading=frozenset({at("w1", "other")}))
    assert [spot for spot in loads(decide(view, NOW, replace(KNOBS, held_s=3.0))) if spot.model == "m"] == goes


def test_a_request_waits_for_a_slot_that_opens_before_a_load_is_done() -> None:
    full = worker("w1", replica("m", running=1), slots=1)
    decision = decided(full, FAR, runs={at("w1"): NOW - 1.0})
    assert not decision.actions
    assert decision.look_again_s == NOW + 10.0


def test_a_line_that_is_longer_than_a_load_takes_has_another_replica_loaded() -> None:
    full = worker("w1", replica("m", running=1), slots=1)
    assert loads(decided(full, FAR, runs={at("w1"): NOW - 1.0}, names=("a", "b", "c"))) == [at("w2")]
