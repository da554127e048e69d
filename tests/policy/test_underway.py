"""Loads under way: what is before each and whose turn it is, what is left, and what is learnt when one is done."""

import pytest

from mesh.facts import Tier
from policy.haul import Haul
from policy.knobs import Knobs
from policy.rates import Quantity, Rate, Rates
from policy.underway import Loads
from tests.policy.scene import at

PER_S = {Tier.ORIGIN: 1.0, Tier.DISK: 10.0, Tier.DRAM: 100.0}
KNOBS = Knobs(bytes_per_s=PER_S, init_s=0.5)
HERE, THERE = at("w1", "a"), at("w2", "b")


class Cluster:
    """Loads, the rates that they teach, and a clock."""

    def __init__(self) -> None:
        self.loads, self.rates, self.now_s = Loads(), Rates(), 0.0

    def begins(
        self, worker_id: str, name: str, *, disk: int = 0, dram: int = 0, origin: int = 0, node: str = "n1"
    ) -> float:
        """A load begins; returns what it is thought to take."""
        spot = at(worker_id, name)
        load = Haul(worker_id, node, "Llama", dram_bytes=dram, disk_bytes=disk, origin_bytes=origin)
        self.loads.begin(spot, load, self.now_s, self.rates, KNOBS)
        return self.loads.by_spot[spot].predicted.mean_s

    def rest_s(self, worker_id: str, name: str) -> float:
        """What one is thought to take from now on."""
        rest = self.loads.rest(at(worker_id, name), self.now_s, self.rates, KNOBS)
        assert rest
        return rest.mean_s


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_load_alone_takes_its_bytes_over_their_rates_and_the_fixed_part(cluster: Cluster) -> None:
    assert cluster.begins("w1", "a", dram=100, disk=100, origin=10) == pytest.approx(1 + 10 + 10 + 0.5)


def test_two_of_a_node_come_from_its_disk_one_after_the_other(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40)
    assert cluster.begins("w2", "b", disk=100) == pytest.approx((40 + 100) / 10 + 0.5)
    assert cluster.rest_s("w1", "a") == pytest.approx(40 / 10 + 0.5)


def test_a_load_has_its_turn_when_all_bytes_before_it_have_come(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40, dram=10)
    cluster.begins("w2", "b", disk=100)
    cluster.loads.take_turn(HERE, 0.0, cluster.rates, KNOBS)
    assert cluster.loads.turn_s(HERE, 0.0) is None
    assert cluster.loads.turn_s(THERE, 0.0)
    assert cluster.loads.rest_before_s(THERE, cluster.rates, KNOBS) == pytest.approx(4.0)
    cluster.loads.progressed(HERE, 49, now=4.0)
    assert cluster.loads.turn_s(THERE, 4.0)
    cluster.loads.progressed(HERE, 50, now=4.1)
    assert cluster.loads.turn_s(THERE, 4.1) is None


def test_nobody_waits_for_a_load_that_is_stuck(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40)
    cluster.begins("w2", "b", disk=100)
    assert cluster.loads.turn_s(THERE, 0.0) == float("inf")  # the one before it has not begun itself
    cluster.loads.take_turn(HERE, 0.0, cluster.rates, KNOBS)
    late_s = cluster.loads.turn_s(THERE, 0.0)
    assert late_s
    assert 3 * 4.5 < late_s < float("inf")
    assert cluster.loads.turn_s(THERE, late_s) is None


def test_what_passes_through_something_else_has_its_turn_at_once(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40)
    cluster.begins("w2", "b", disk=100, node="n2")
    assert cluster.loads.turn_s(THERE, 0.0) is None
    assert cluster.loads.turn_s(at("w9", "nobody"), 0.0) is None


@pytest.mark.parametrize(
    "other",
    [{"node": "n2", "disk": 40}, {"dram": 40}, {"origin": 40}],
    ids=["another node's disk", "another device's bus", "the network"],
)
def test_what_passes_elsewhere_delays_nothing(cluster: Cluster, other: dict[str, int]) -> None:
    cluster.begins("w1", "a", **other)  # type: ignore[arg-type]
    assert cluster.begins("w2", "b", disk=100) == pytest.approx(100 / 10 + 0.5)


def test_what_has_come_delays_nobody_any_more(cluster: Cluster) -> None:
    cluster.begins("w1", "a", dram=10, disk=40)
    cluster.loads.progressed(HERE, 10 + 30, now=1.0)
    assert cluster.begins("w2", "b", disk=100) == pytest.approx((10 + 100) / 10 + 0.5)


def test_once_all_bytes_are_there_the_fixed_part_passes(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40)
    cluster.now_s = 4.0
    cluster.loads.progressed(HERE, 40, cluster.now_s)
    assert cluster.rest_s("w1", "a") == pytest.approx(0.5)
    cluster.now_s = 4.2
    assert cluster.rest_s("w1", "a") == pytest.approx(0.3)
    cluster.now_s = 10.0
    assert cluster.rest_s("w1", "a") == 0


def test_a_disk_that_others_used_first_is_not_thought_to_be_slow(cluster: Cluster) -> None:
    """Two loads through 10 bytes a second: the second waits for the first."""
    for _ in range(20):
        cluster.begins("w1", "a", disk=1000)
        cluster.begins("w2", "b", disk=1000)
        for spot in (HERE, THERE):
            cluster.now_s += 100
            cluster.loads.progressed(spot, 1000, cluster.now_s)
            assert cluster.loads.done(spot, cluster.now_s + 0.5, cluster.rates, KNOBS)
        cluster.now_s += 0.5
    assert 1 / cluster.rates.of(Rate(Quantity.DISK, "n1"), 1.0).mean_s == pytest.approx(10.0, rel=0.02)


def test_what_a_load_that_was_ended_early_did_not_bring_has_passed_beside_nobody(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40)
    cluster.begins("w2", "b", disk=100)
    cluster.loads.progressed(HERE, 10, now=1.0)
    cluster.loads.end(HERE)
    assert cluster.loads.by_spot[THERE].beside == {Tier.DISK: 10}
    assert not cluster.rates.learnt
    assert cluster.rest_s("w2", "b") == pytest.approx(10.5)


def test_one_that_is_only_expected_is_before_those_that_come_until_it_is_taken_back(cluster: Cluster) -> None:
    cluster.begins("w2", "b", disk=100)
    before, next_one = repr(cluster.loads), Haul("w3", "n1", "Llama", disk_bytes=20)
    cluster.loads.expect(HERE, Haul("w1", "n1", "Llama", disk_bytes=40))
    assert cluster.loads.beside(next_one) == {Tier.DISK: 140}
    cluster.loads.end(HERE)
    assert repr(cluster.loads) == before


def test_a_lesson_says_what_was_thought_and_what_it_was(cluster: Cluster) -> None:
    thought_s = cluster.begins("w1", "a", disk=40)
    cluster.now_s = 7.0
    lesson = cluster.loads.done(HERE, cluster.now_s, cluster.rates, KNOBS)
    assert lesson
    assert (lesson.predicted.mean_s, lesson.took_s) == (thought_s, 7.0)
    assert lesson.predicted.p90_s > thought_s
    assert cluster.begins("w1", "a", disk=40) == pytest.approx(7.0, rel=0.05)


def test_of_a_load_that_nobody_saw_begin_nothing_is_known(cluster: Cluster) -> None:
    assert cluster.loads.rest(HERE, 1.0, cluster.rates, KNOBS) is None
    assert cluster.loads.done(HERE, 1.0, cluster.rates, KNOBS) is None
    cluster.loads.end(HERE)
    cluster.loads.progressed(HERE, 1, 1.0)


def test_nothing_is_left_of_loads_that_are_over(cluster: Cluster) -> None:
    cluster.begins("w1", "a", disk=40, origin=3)
    cluster.begins("w2", "b", dram=40)
    cluster.loads.end(HERE)
    cluster.loads.done(THERE, 1.0, cluster.rates, KNOBS)
    assert cluster.loads == Loads()


def test_the_nearest_bytes_come_first() -> None:
    whole = Haul("w1", "n1", "Llama", dram_bytes=10, disk_bytes=20, origin_bytes=30)
    assert whole.less(5) == Haul("w1", "n1", "Llama", dram_bytes=5, disk_bytes=20, origin_bytes=30)
    assert whole.less(25) == Haul("w1", "n1", "Llama", disk_bytes=5, origin_bytes=30)
    assert whole.less(45) == Haul("w1", "n1", "Llama", origin_bytes=15)
    assert whole.less(60).bytes == 0
