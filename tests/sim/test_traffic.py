import pytest

from sim.engine import Engine
from sim.traffic import Flow, Resource, Traffic, fair_shares


class Road:
    def __init__(self) -> None:
        self.engine = Engine()
        self.traffic = Traffic(self.engine)
        self.ends: dict[str, float] = {}

    def begin(self, name: str, size: float, *through: Resource) -> Flow:
        return self.traffic.begin(size, through, lambda: self.ends.update({name: self.engine.now_s}))


def test_a_flow_alone_is_as_fast_as_the_narrowest_thing_in_its_way() -> None:
    road, disk, bus = Road(), Resource("disk", 2.0), Resource("bus", 10.0)
    road.begin("a", 8.0, disk, bus)
    road.engine.run()
    assert road.ends == {"a": 4.0}


def test_flows_share_and_the_last_one_gets_all() -> None:
    road, disk = Road(), Resource("disk", 2.0)
    road.begin("short", 2.0, disk)
    road.begin("long", 6.0, disk)
    road.engine.run()
    assert road.ends == pytest.approx({"short": 2.0, "long": 4.0})
    assert disk.moved_bytes == pytest.approx(8.0)


def test_what_one_flow_cannot_use_another_gets() -> None:
    disk, slow, fast = Resource("disk", 10.0), Resource("slow", 2.0), Resource("fast", 100.0)
    flows = [Flow(1.0, (disk, slow), Engine), Flow(1.0, (disk, fast), Engine)]
    assert dict(fair_shares(flows)) == {flows[0]: 2.0, flows[1]: 8.0}


def test_a_flow_that_is_ended_frees_its_share_and_is_never_done() -> None:
    road, disk = Road(), Resource("disk", 2.0)
    gone = road.begin("gone", 100.0, disk)
    road.begin("a", 4.0, disk)
    road.engine.at(2.0, lambda: road.traffic.end(gone))
    road.engine.run()
    assert road.ends == pytest.approx({"a": 3.0})


def test_a_disk_that_stalls_holds_what_comes_through_it_until_it_runs_again() -> None:
    road, disk = Road(), Resource("disk", 2.0)
    road.begin("a", 4.0, disk)
    road.engine.at(1.0, lambda: road.traffic.slow(disk, 0.0))
    road.engine.at(5.0, lambda: road.traffic.slow(disk, 1.0))
    road.engine.run()
    assert road.ends == pytest.approx({"a": 7.0})
