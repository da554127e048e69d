"""Copies of checkpoints: when one more is worth its place, where it goes, and what leaves for it. Each has 10."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from mesh.facts import CheckpointFacts, Kind, Member, ModelEntry, StoreFacts, Tier
from policy.actions import Prefetch
from policy.books import Books
from policy.copying import Copy, Copying
from policy.decide import decide
from policy.demand import Demand
from policy.knobs import Knobs
from policy.view import View
from tests.policy.scene import REPLICA, WEIGHTS, at, cluster, model, replica, request, worker

RATES = MappingProxyType({Tier.ORIGIN: 0.5, Tier.DISK: 1.0, Tier.DRAM: 10.0, Tier.DEVICE: 1e12})
KNOBS = Knobs(bytes_per_s=RATES, init_s=0.0)
NOW = 10_000.0
M, HOT, COLD = model("m"), model("hot"), model("cold")
LOADING = worker("w1", node="n1", memory=3 * REPLICA)
IDLE = worker("w2", node="n2", memory=3 * REPLICA)


def shelf(store_id: str, node: str, disk: str = "", dram: str = "", *, room: int = 30, disk_room: int = 1000) -> Member:
    """A store; what is in its memory is on its disk, too."""
    names = sorted({*disk.split(), *dram.split()})
    held = [
        CheckpointFacts(
            f"{n}@1", WEIGHTS, Tier.DRAM if n in dram.split() else Tier.DISK, WEIGHTS, WEIGHTS * (n in dram)
        )
        for n in names
    ]
    facts = StoreFacts(WEIGHTS * len(names), room, WEIGHTS * len(dram.split()), tuple(held), disk_room)
    return Member(Kind.STORE, store_id, node, f"{store_id}:1", 1, store=facts)


def asked(**often: int) -> Demand:
    """So many requests for each model, evenly in the last thousand seconds."""
    demand = Demand()
    for name, count in often.items():
        for number in reversed(range(count)):
            demand.arrived(name, NOW - 1000.0 * (number + 0.5) / count)
    return demand


def prefetches(*members: Member, models: tuple[ModelEntry, ...] = (M, HOT, COLD), **rest: Any) -> list[Prefetch]:
    """What is prefetched at NOW; unless told, m is often asked for, and it is loaded, for a request waits."""
    rest.setdefault("waiting", (request("r", since_s=NOW),))
    rest.setdefault("demand", asked(m=100))
    knobs = rest.pop("knobs", KNOBS)
    decision = decide(View(cluster(members, models), **rest), NOW, knobs)
    return [action for action in decision.actions if isinstance(action, Prefetch)]


ELSEWHERE = Prefetch("s2", "m@1", Tier.DRAM)


def test_what_is_loaded_and_often_asked_for_gets_a_copy_in_another_nodes_memory() -> None:
    assert prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2")) == [ELSEWHERE]


@pytest.mark.parametrize("demand", [asked(), asked(m=1), asked(hot=100)])
def test_what_is_seldom_asked_for_gets_none(demand: Demand) -> None:
    assert prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2"), demand=demand) == []


def test_each_further_copy_must_be_worth_more() -> None:
    stores = [shelf(f"s{n}", f"n{n}", dram="m") for n in range(1, 7)]
    assert prefetches(LOADING, IDLE, *stores, shelf("s9", "n2")) == []


def test_nothing_is_copied_where_it_is_switched_off() -> None:
    assert (
        prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2"), knobs=replace(KNOBS, copies=False))
        == []
    )


def test_what_is_worth_less_than_half_leaves_and_the_least_first() -> None:
    full = shelf("s2", "n2", dram="hot cold", room=20)
    found = prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), full, demand=asked(m=100, hot=30, cold=1))
    assert found == [replace(ELSEWHERE, instead=("cold@1",))]


def test_what_is_worth_as_much_stays() -> None:
    full = shelf("s2", "n2", dram="hot", room=10)
    assert prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), full, demand=asked(m=100, hot=100)) == []


def test_a_store_with_room_is_preferred_to_one_where_something_leaves() -> None:
    full, roomy = shelf("s2", "n2", dram="cold", room=10), shelf("s3", "n3")
    members = [LOADING, IDLE, worker("w3", node="n3"), shelf("s1", "n1", dram="m"), full, roomy]
    assert prefetches(*members) == [replace(ELSEWHERE, store_id="s3")]


def test_nothing_leaves_that_is_being_loaded_there_or_is_what_a_host_device_runs() -> None:
    full = shelf("s2", "n2", dram="cold", room=10)
    near = shelf("s1", "n1", dram="m")
    assert prefetches(LOADING, IDLE, near, full, loading=frozenset({at("w2", "cold")})) == []
    runs = worker("w2", replica("cold"), node="n2", memory=3 * REPLICA)
    assert prefetches(LOADING, runs, near, full) == []


def test_a_checkpoint_larger_than_a_stores_memory_is_not_brought_there() -> None:
    assert prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2", room=9)) == []


def test_a_store_brings_one_at_a_time_and_none_while_it_is_barred() -> None:
    members = [LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2")]
    assert prefetches(*members, copying=Copying(under_way={Copy("s2", "hot@1", Tier.DRAM)})) == []
    for digest in ("m@1", ""):
        assert prefetches(*members, copying=Copying(barred_until_s={("s2", digest): NOW + 1.0})) == []
    assert prefetches(*members, copying=Copying(barred_until_s={("s2", "hot@1"): NOW + 1.0})) == [ELSEWHERE]


def test_a_copy_on_its_way_counts() -> None:
    on_its_way = Copying(under_way={Copy(f"s{n}", "m@1", Tier.DRAM) for n in range(3, 9)})
    assert prefetches(LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2"), copying=on_its_way) == []


def test_a_load_brings_a_copy_with_it() -> None:
    """So another is a further one; had the load not begun, it would be the first."""
    stores, seldom = (shelf("s1", "n1", disk="m"), shelf("s2", "n2")), asked(m=5)
    assert prefetches(LOADING, IDLE, *stores, demand=seldom) == []
    assert prefetches(*stores, IDLE, demand=seldom, waiting=(), copying=Copying(news=frozenset({"m@1"}))) != []


@pytest.mark.parametrize(("often", "found"), [(1, [ELSEWHERE]), (100, [])])
def test_memory_that_a_checkpoint_on_the_same_disk_will_want_is_not_free(often: int, found: list[Prefetch]) -> None:
    members = LOADING, IDLE, shelf("s1", "n1", dram="m"), shelf("s2", "n2", disk="hot", room=10)
    assert prefetches(*members, demand=asked(m=100, hot=often)) == found


ALWAYS = replace(M, min_replicas=1)
READY = worker("w1", replica("m"), node="n1")


def test_what_is_to_be_there_always_has_two_copies_on_disk() -> None:
    members = [READY, shelf("s1", "n1", disk="m"), shelf("s2", "n2", disk_room=50), shelf("s3", "n3", disk_room=60)]
    assert prefetches(*members, models=(ALWAYS,), waiting=(), demand=asked()) == [Prefetch("s3", "m@1", Tier.DISK)]
    assert prefetches(*members, models=(M,), waiting=(), demand=asked()) == []
    endless = [*members, shelf("s4", "n4", disk="hot", disk_room=0)]  # as much as there is
    assert prefetches(*endless, models=(ALWAYS,), waiting=(), demand=asked()) == [Prefetch("s4", "m@1", Tier.DISK)]
    two = [*members, shelf("s4", "n4", disk="m")]
    assert prefetches(*two, models=(ALWAYS,), waiting=(), demand=asked()) == []


def test_when_a_store_may_be_asked_again_it_is() -> None:
    books = Books()
    books.observe(cluster([READY, shelf("s1", "n1", disk="m"), shelf("s2", "n2")], (ALWAYS,)))
    books.copying.bar("s2", "m@1", NOW + 60.0, whole=True)
    first = decide(books.view(NOW), NOW, KNOBS)
    assert not [one for one in first.actions if isinstance(one, Prefetch)]
    assert first.look_again_s == NOW + 60.0
    then = decide(books.view(NOW + 60.0), NOW + 60.0, KNOBS)
    assert Prefetch("s2", "m@1", Tier.DISK) in then.actions


def test_a_copy_that_has_come_is_news_once() -> None:
    books = Books()
    books.copying.began(Copy("s2", "m@1", Tier.DRAM))
    books.copying.ended(Copy("s2", "m@1", Tier.DRAM))
    assert books.view(NOW).copying.news == {"m@1"}
    assert books.view(NOW).copying.news == set()
