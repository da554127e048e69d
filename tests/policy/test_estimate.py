"""Estimates: which store to load from, and how long a start takes."""

from dataclasses import replace

import pytest

from mesh.facts import CheckpointFacts, Kind, Member, StoreFacts, Tier
from policy.estimate import ALONE, Source, estimate, haul, load_work, prefill, unloading
from policy.knobs import Knobs
from policy.prices import Prices
from policy.rates import Rates
from tests.policy.scene import WEIGHTS, model, nearest_source, store, worker

RATES = {Tier.ORIGIN: 1.0, Tier.DISK: 10.0, Tier.DRAM: 100.0, Tier.DEVICE: 1000.0}
KNOBS = Knobs(bytes_per_s=RATES, init_s=0.5)


def start_up_s(source: Source, node: str = "n1") -> float:
    """Of a hundred bytes from there to a worker of this node, by guesses."""
    load = haul(replace(model("m", weights=100).checkpoint, digest="d"), source, worker("w1", node=node))
    took_s = Prices(Rates(), load.architecture, KNOBS).mean_s(load, ALONE)
    assert took_s == estimate(load_work(load, KNOBS), Rates()).mean_s
    return took_s


def partly(store_id: str, *, node: str, disk: int = 0, dram: int = 0, size: int = 100) -> Member:
    """A store that holds some of "d"."""
    held = CheckpointFacts("d", size, Tier.ORIGIN, disk_bytes=disk, dram_bytes=dram)
    return Member(Kind.STORE, store_id, node, f"{store_id}:1", 1, store=StoreFacts(0, 0, 0, (held,)))


def test_the_own_nodes_store_comes_before_any_other_whatever_it_has() -> None:
    there = store("s2", "d", node="n2", tier=Tier.DRAM)
    for here in (store("s1", "d", node="n1", tier=Tier.DISK), partly("s1", node="n1"), store("s1", "x", node="n1")):
        source = nearest_source([here, there], "d", "n1")
        assert source is not None
        assert source.store is here


def test_elsewhere_the_one_with_most_in_the_nearest_tier_comes_first() -> None:
    disk, dram = store("s2", "d", node="n2", tier=Tier.DISK), store("s1", "d", node="n3", tier=Tier.DRAM)
    assert nearest_source([disk, dram], "d", "n1") == Source(dram, WEIGHTS, 0)
    assert nearest_source([disk], "d", "n1") == Source(disk, 0, WEIGHTS)


def test_a_checkpoint_that_no_store_has_heard_of_has_no_source() -> None:
    assert nearest_source([store("s1", "other", node="n1")], "d", "n1") is None
    assert nearest_source([], "d", "n1") is None


def test_unless_a_store_can_ask_an_origin() -> None:
    learner = Member(Kind.STORE, "s1", "n1", "s1:1", 1, store=StoreFacts(0, 0, 0, origins=1))
    assert nearest_source([store("s2", "other", node="n1"), learner], "d", "n2") == Source(learner, 0, 0)
    assert start_up_s(Source(learner, 0, 0)) == 100.5


def test_equal_stores_are_told_apart_the_same_way_in_every_order() -> None:
    stores = [store(f"s{n}", "d") for n in range(3)]
    assert nearest_source(stores, "d", "n1") == nearest_source(stores[::-1], "d", "n1")


@pytest.mark.parametrize(
    ("dram", "disk", "expected_s"),
    [(100, 0, 1.5), (0, 100, 10.5), (0, 0, 100.5), (40, 100, 0.4 + 6 + 0.5), (20, 50, 0.2 + 3 + 50 + 0.5)],
)
def test_a_start_takes_the_bytes_of_each_tier_over_its_rate_and_the_fixed_part(
    dram: int, disk: int, expected_s: float
) -> None:
    source = nearest_source([partly("s", node="n1", dram=dram, disk=disk)], "d", "n1")
    assert source is not None
    assert start_up_s(source) == pytest.approx(expected_s)


def test_from_another_node_the_network_is_the_limit() -> None:
    assert start_up_s(Source(store("s", "d", node="n2"), 100, 0)) == 100.5


def test_a_start_waits_for_the_longer_of_the_disk_and_the_device() -> None:
    load = haul(model("m").checkpoint, Source(store("s", "m@1"), 0, WEIGHTS), worker("w1"))
    work = load_work(load, KNOBS, {Tier.DISK: 20})
    clearing = unloading("n1", KNOBS)
    prompt = prefill("n1", "m@1", 100, KNOBS)
    alone, cleared = estimate(work, Rates()), estimate(replace(work, device=(clearing,)), Rates())
    assert alone.io_queue_s == pytest.approx(2.0)
    assert cleared.device_queue_s == KNOBS.unload_s
    assert cleared.mean_s == alone.mean_s == pytest.approx(2.0 + 1.0 + 0.5)
    whole = estimate(replace(work, device=(clearing,) * 100, rest=(*work.rest, prompt)), Rates())
    assert whole.mean_s == pytest.approx(100 * KNOBS.unload_s + 1.0 + 0.5 + 100 * KNOBS.prefill_token_s)
    assert whole.p90_s > whole.mean_s


def test_equal_estimates_need_not_be_equal_promises() -> None:
    known, guessed = Rates(), Rates()
    load = haul(model("m").checkpoint, Source(store("s", "m@1"), 0, WEIGHTS), worker("w1"))
    for _ in range(20):
        known.saw(load_work(load, KNOBS).portions(), 1.5)
    sure, unsure = (estimate(load_work(load, KNOBS), rates) for rates in (known, guessed))
    assert sure.mean_s == pytest.approx(unsure.mean_s, rel=0.05)
    assert sure.p90_s < 0.7 * unsure.p90_s
