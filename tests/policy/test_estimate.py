"""Estimates: which store to load from, and how long a start takes."""

import pytest

from mesh.facts import Tier
from policy.estimate import Source, nearest_source, start_up_s
from policy.knobs import Knobs
from tests.policy.scene import store

RATES = {Tier.ORIGIN: 1.0, Tier.DISK: 10.0, Tier.DRAM: 100.0, Tier.DEVICE: 1000.0}
KNOBS = Knobs(bytes_per_s=RATES, init_s=0.5)


def test_a_store_of_the_same_node_comes_before_a_nearer_tier_elsewhere() -> None:
    here, there = store("s1", "d", node="n1", tier=Tier.DISK), store("s2", "d", node="n2", tier=Tier.DRAM)
    assert nearest_source([here, there], "d", "n1") == Source(here, Tier.DISK)


def test_elsewhere_the_nearest_tier_comes_first() -> None:
    disk, dram = store("s2", "d", node="n2", tier=Tier.DISK), store("s1", "d", node="n3", tier=Tier.DRAM)
    assert nearest_source([disk, dram], "d", "n1") == Source(dram, Tier.DRAM)


def test_a_checkpoint_that_no_store_holds_has_no_source() -> None:
    assert nearest_source([store("s1", "other")], "d", "n1") is None
    assert nearest_source([], "d", "n1") is None


def test_equal_stores_are_told_apart_the_same_way_in_every_order() -> None:
    stores = [store(f"s{n}", "d") for n in range(3)]
    assert nearest_source(stores, "d", "n1") == nearest_source(stores[::-1], "d", "n1")


@pytest.mark.parametrize(("tier", "expected_s"), [(Tier.DRAM, 1.5), (Tier.DISK, 10.5), (Tier.ORIGIN, 100.5)])
def test_a_start_takes_its_bytes_over_the_tiers_rate_and_the_fixed_part(tier: Tier, expected_s: float) -> None:
    assert start_up_s(100, Source(store("s", "d", node="n1"), tier), "n1", KNOBS) == expected_s


def test_from_another_node_the_network_is_the_limit() -> None:
    assert start_up_s(100, Source(store("s", "d", node="n2"), Tier.DRAM), "n1", KNOBS) == 100.5
