"""The judgement learns what a simulated cluster's loads take, shared disks and networks included."""

import pytest

from mesh.facts import ReplicaState, Tier
from policy.knobs import Knobs
from policy.rates import Quantity, Rate, Rates
from policy.underway import Lesson
from sim.arrivals import Gaps, Law
from sim.judgement import Judgement
from sim.policy import ClusterState, Plan
from sim.run import simulate
from sim.workload import Workload, model_name
from tests.sim.paper import cluster

WORKLOAD = Workload(
    models=12, rps=0.4, duration_s=3000.0, seed=5, skew=0.5, gaps=Gaps(Law.GAMMA, 2.0), lengths=("gsm8k-like",)
)
SPEC = cluster(
    *map(model_name, range(12)), nodes=2, workers=2, memory_bytes=14, dram_bytes=40, dram_bytes_per_s=20.0,
    disk_bytes_per_s=8.0, origin_bytes_per_s=4.0,
)  # fmt: skip

GUESSES = {Tier.ORIGIN: 20.0, Tier.DISK: 2.0, Tier.DRAM: 5.0}  # each some four times off


class Noting:
    """The judgement, and what each load that ended well was thought to take, and took."""

    name = "noting"

    def __init__(self, judgement: Judgement) -> None:
        self.judgement, self.lessons = judgement, list[Lesson]()

    def decide(self, state: ClusterState, now: float) -> Plan:
        under_way = dict(self.judgement._books.loads.by_spot)
        plan = self.judgement.decide(state, now)
        ended = under_way.keys() - self.judgement._books.loads.by_spot.keys()
        for one in [one for one in state.residents() if one.state is ReplicaState.READY and one.spot in ended]:
            load = under_way[one.spot]
            self.lessons.append(Lesson(one.spot, load.load.farthest, load.predicted, now - load.began_s))
        return plan


@pytest.fixture(scope="module")
def learnt() -> tuple[list[Lesson], Rates]:
    noting = Noting(Judgement(Knobs(keep_alive_s=0.0, hold_s=600.0, bytes_per_s=GUESSES)))
    simulate(SPEC, WORKLOAD.requests(), noting)
    return noting.lessons[len(noting.lessons) // 3 :], noting.judgement._books.rates  # once it has seen some


def test_after_a_while_loads_take_what_they_are_thought_to(learnt: tuple[list[Lesson], Rates]) -> None:
    lessons, _ = learnt
    assert len(lessons) > 100
    errors = sorted(abs(lesson.predicted.mean_s / lesson.took_s - 1) for lesson in lessons)
    assert errors[len(errors) // 2] < 0.02
    assert errors[len(errors) * 9 // 10] < 0.1
    kept = sum(lesson.took_s <= lesson.predicted.p90_s for lesson in lessons)
    assert kept > 0.9 * len(lessons)


@pytest.mark.parametrize(("quantity", "bytes_per_s"), [("dram", 20.0), ("disk", 8.0), ("origin", 4.0)])
def test_a_load_from_each_tier_alone_is_foreseen(
    learnt: tuple[list[Lesson], Rates], quantity: str, bytes_per_s: float
) -> None:
    """All checkpoints have ten bytes, so that the fixed part cannot be told from theirs; the sum can."""
    _, rates = learnt
    for node in ("n0", "n1"):
        init_s = rates.mean_s(Rate(Quantity.INIT, node), 0.0)
        assert init_s + 10 * rates.mean_s(Rate(Quantity(quantity), node), 0.0) == pytest.approx(
            0.5 + 10 / bytes_per_s, rel=0.05
        )
