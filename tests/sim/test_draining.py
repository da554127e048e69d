"""Workers that are to become empty, with moves and without."""

from dataclasses import replace

import pytest

from policy.knobs import Knobs
from sim.failures import Drain
from sim.judgement import Judgement
from sim.outcome import Run
from sim.policy import ClusterState, Plan
from sim.run import simulate
from tests.sim.paper import ask, cluster

AT_S, DRAINED = 40.0, "n0-w0"
REQUESTS = [*(ask(0.2 * n, answer=1200) for n in range(4)), ask(300.0)]  # two minutes each; and one that comes last
KNOBS = Knobs(hold_s=600.0, held_s=120.0, token_s=0.1, prefill_token_s=0.01, kv_bytes_per_s=1e3, crowding=0.0)


class Watch:
    """Ours, that notes when the worker is empty."""

    name = "whimbrel"

    def __init__(self, knobs: Knobs) -> None:
        self._ours = Judgement(knobs)
        self.empty_s: float | None = None

    def decide(self, state: ClusterState, now: float) -> Plan:
        """As ours does."""
        held = any(one.spot.worker_id == DRAINED for one in state.residents())
        if now > AT_S and not held and self.empty_s is None:
            self.empty_s = now
        return self._ours.decide(state, now)


def drained(*, moves: bool, kv_bytes_per_token: int = 0) -> tuple[float, Run]:
    """How long it takes from the wish on."""
    spec = cluster("a", nodes=2, copies=2, slots=4, disk_bytes_per_s=1e3, origin_bytes_per_s=1e3)
    models = tuple(replace(one, kv_bytes_per_token=kv_bytes_per_token) for one in spec.models)
    watch = Watch(replace(KNOBS, moves=moves))
    run = simulate(replace(spec, models=models), REQUESTS, watch, [Drain(AT_S, DRAINED)])
    assert watch.empty_s is not None
    return watch.empty_s - AT_S, run


@pytest.mark.parametrize("kv_bytes_per_token", [0, 1])
def test_a_worker_is_empty_long_before_its_answers_have_ended(kv_bytes_per_token: int) -> None:
    waited_s, still = drained(moves=False)
    took_s, moved = drained(moves=True, kv_bytes_per_token=kv_bytes_per_token)
    assert sum(one.moves for one in still.outcomes) == 0
    assert [one.moves for one in moved.outcomes] == [1, 1, 1, 1, 0]
    assert not any(one.lost or one.refused for one in (*still.outcomes, *moved.outcomes))
    assert took_s < waited_s / 2
