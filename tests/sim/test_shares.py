"""Tenants' shares of simulated devices, while each of them asks for more than there is."""

import pytest

from policy.knobs import Knobs
from sim.judgement import Judgement
from sim.outcome import Run
from sim.request import Request
from sim.run import simulate
from tests.sim.paper import cluster

SECONDS = 500.0
ANSWERS = (20, 13, 37)  # tokens, in turn, so that a batch does not end at once; each takes 0.1 s, a prefill 1 s


def asked(tenant: str, model: str, every_s: float) -> list[Request]:
    """One after the other."""
    times = range(int(SECONDS / every_s))
    return [Request(n * every_s, model, 50, ANSWERS[n % len(ANSWERS)], tenant=tenant) for n in times]


def run(knobs: Knobs, *requests: Request, **changes: float) -> Run:
    """One worker, with room for one replica of two slots."""
    models = sorted({one.model for one in requests})
    return simulate(cluster(*models, **changes), sorted(requests, key=lambda one: one.at_s), Judgement(knobs))


BOTH = (*asked("a", "m", 1.0), *asked("b", "n", 1.0))
SIX_SLOTS = {"slots": 6, "dram_bytes_per_s": 20.0}


def share(run: Run, tenant: str) -> float:
    """Of all work that ended while everybody asked, one tenant's: steps, and a prefill for ten of them."""
    ended = [one.request for one in run.outcomes if one.finished_s is not None and one.finished_s < SECONDS]
    work = {name: sum(10 + one.answer_tokens for one in ended if one.tenant == name) for name in ("a", "b")}
    assert len(ended) > 80
    return work[tenant] / sum(work.values())


@pytest.mark.parametrize(("weights", "expected"), [({}, 0.5), ({"a": 3.0}, 0.75), ({"b": 4.0}, 0.2)])
def test_of_one_models_slots_each_tenant_has_its_share(weights: dict[str, float], expected: float) -> None:
    """Within 3 % of all; the other asks three times as often, and gains nothing by it."""
    knobs = Knobs(tenant_weights=weights, hold_s=40.0, ageing_s=1e6)
    found = run(knobs, *asked("a", "m", 1.5), *asked("b", "m", 0.5))
    assert share(found, "a") == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("weights", "expected"), [({}, 0.5), ({"a": 3.0}, 0.75)])
def test_of_memory_for_one_model_each_tenant_has_its_share_of_the_time(
    weights: dict[str, float], expected: float
) -> None:
    """Within 10 %: a device is had by turns, each at least as long as a load and `yield_s`."""
    found = run(Knobs(tenant_weights=weights, hold_s=300.0, ageing_s=1e6, yield_s=20.0), *BOTH, **SIX_SLOTS)
    assert share(found, "a") == pytest.approx(expected, abs=0.1)


def test_without_it_who_has_the_memory_would_keep_it() -> None:
    found = run(Knobs(hold_s=300.0, ageing_s=1e6, yield_s=1e6), *BOTH, **SIX_SLOTS)
    assert not 0.1 < share(found, "a") < 0.9


def test_a_model_that_is_asked_now_and_then_is_not_starved_by_one_that_always_is() -> None:
    """Of one tenant: who has waited for `ageing_s` goes before what is new."""
    rare = [Request(50.0 + 120.0 * n, "rare", 50, ANSWERS[0]) for n in range(4)]
    found = run(Knobs(hold_s=120.0, ageing_s=20.0), *asked("", "hot", 2.0), *rare, **SIX_SLOTS)
    waits_s = [one.latency_s for one in found.outcomes if one.request.model == "rare" and one.refused is None]
    assert len(waits_s) == len(rare)
    assert max(wait_s for wait_s in waits_s if wait_s is not None) < 40.0
