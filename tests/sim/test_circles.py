"""Nothing turns in circles: what was loaded for somebody answers them, however many wait for memory."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.actions import Place, Unload
from policy.knobs import Knobs
from sim.bounds.no_load_time import without_load_time
from sim.judgement import Judgement
from sim.policy import ClusterState, Plan
from sim.request import Request
from sim.run import simulate
from sim.workload import model_name
from tests.sim.paper import cluster

MODELS = [model_name(i) for i in range(7)]
SPEC = cluster(*MODELS, nodes=2, workers=2, memory_bytes=20, dram_bytes_per_s=10.0, disk_bytes_per_s=4.0)
KNOBS = Knobs(hold_s=1e6, ageing_s=1e6, moves=True, held_s=2.0)
MOST = 50  # decisions at one moment, each of a load or an unload that has taken no time, or of an end

REQUESTS = st.lists(
    st.builds(
        Request,
        at_s=st.sampled_from((0.0, 0.1, 1.0, 3.0)),
        model=st.sampled_from(MODELS),
        prompt_tokens=st.just(10),
        answer_tokens=st.sampled_from((1, 5, 200)),
    ),
    min_size=5,
    max_size=25,
).map(lambda asked: sorted(asked, key=lambda one: one.at_s))


class Watched:
    """Our policy, and how often it was asked at each moment."""

    name = "whimbrel"

    def __init__(self) -> None:
        self._ours, self.asked = Judgement(KNOBS), Counter[float]()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Whom it leaves waiting, it leaves the replica that has a slot for them."""
        plan = self._ours.decide(state, now)
        placed = {one.request_id for one in plan.actions if isinstance(one, Place)}
        wanted = {one.model for one in state.waiting if one.id not in placed}
        assert not wanted & {one.spot.model for one in plan.actions if isinstance(one, Unload)}
        self.asked[now] += 1
        assert self.asked[now] < MOST
        return plan


@settings(max_examples=40, deadline=None)
@given(REQUESTS, st.booleans())
def test_nothing_is_unloaded_that_somebody_waits_for_nor_decided_on_for_ever(
    asked: list[Request], at_once: bool
) -> None:
    """Where loads take no time, a circle would have no end."""
    run = simulate(without_load_time(SPEC) if at_once else SPEC, asked, Watched())
    assert all(one.first_s is not None for one in run.outcomes)
