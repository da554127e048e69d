import pytest

from sim.baselines.best_free import BestFree
from sim.baselines.startup import Queue, load_s, queue, resume_s
from sim.policy import LoadState, spot
from sim.run import simulate
from tests.sim.baselines.scene import node, running, state
from tests.sim.paper import ask, cluster

MODELS = dict(state().models)


def test_each_tier_gives_its_bytes_at_its_rate_and_the_nearest_counts() -> None:
    assert load_s(node("n0", dram="a", disk="a"), MODELS["a"], Queue()) == pytest.approx(1.5)
    assert load_s(node("n0", disk="a"), MODELS["a"], Queue()) == pytest.approx(10.5)
    assert load_s(node("n0"), MODELS["a"], Queue()) == pytest.approx(20.5)


def test_only_what_a_load_has_to_pass_through_makes_it_wait() -> None:
    here = node("n0", dram="b", disk="ab", loads=(LoadState(spot("n0-w0", "a"), 0.0, 4),))
    queued = queue(here, MODELS)
    assert queued == Queue(disk_s=4.0)
    assert load_s(here, MODELS["b"], queued) == pytest.approx(1.5)
    assert load_s(here, MODELS["a"], queued) == pytest.approx(14.5)
    assert load_s(here, MODELS["c"], queued) == pytest.approx(20.5)


def test_the_estimate_of_a_load_alone_is_what_it_takes() -> None:
    done = simulate(cluster("a"), [ask(0.0)], BestFree())
    assert [one.ready_s for one in done.loads] == pytest.approx([load_s(node("n0", disk="a"), MODELS["a"], Queue())])


def test_resuming_takes_the_prefill_of_prompt_and_answer_so_far() -> None:
    assert resume_s(MODELS["a"], running("0")) == pytest.approx(1.0)
