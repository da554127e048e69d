import pytest

from mesh.facts import Tier
from sim.baselines.best_free import BestFree
from sim.bounds.no_load_time import without_load_time
from sim.bounds.physics import first_loads_s, load_s
from sim.run import simulate
from tests.sim.paper import ask, cluster


def test_without_load_time_only_prefills_and_queues_are_left() -> None:
    spec = without_load_time(cluster("a", "b"))
    run = simulate(spec, [ask(0.0, "a"), ask(50.0, "b"), ask(50.0, "b"), ask(50.0, "b")], BestFree())
    first_s = [one.first_s for one in run.outcomes]
    assert first_s[:3] == pytest.approx([1.0, 51.0, 52.0])
    slot_opens_s = min(one.finished_s or 0.0 for one in run.outcomes[1:])
    assert run.outcomes[3].start_s == pytest.approx(slot_opens_s)


def test_a_load_takes_at_least_its_bytes_over_the_narrowest_rate() -> None:
    spec = cluster("a", "b", copies=0)
    (model, _), node = spec.models, spec.node
    assert [load_s(node, model, tier) for tier in (Tier.DRAM, Tier.DISK, Tier.ORIGIN)] == pytest.approx(
        [1.5, 10.5, 20.5]
    )
    assert first_loads_s(spec, [ask(0.0), ask(1.0), ask(2.0, "nobody")]) == pytest.approx(20.5)
    assert first_loads_s(cluster("a", "b"), [ask(0.0), ask(2.0, "b")]) == pytest.approx(21.0)
