import pytest

from sim.batch import Batch, Costs, Sequence
from sim.engine import Engine
from sim.serving import Device

COSTS = Costs(prefill_s=0.5, prefill_token_s=0.01, step_s=0.1, step_sequence_s=0.02, step_token_s=0.001)


class Bench:
    def __init__(self) -> None:
        self.engine = Engine()
        self.device = Device(self.engine)
        self.first: dict[str, float] = {}
        self.done: dict[str, float] = {}

    def batch(self) -> Batch:
        batch = Batch(COSTS)
        self.device.add(batch)
        return batch

    def sequence(self, name: str, prompt: int = 100, answer: int = 5) -> Sequence:
        def first() -> None:
            self.first[name] = self.engine.now_s

        def done() -> None:
            self.done[name] = self.engine.now_s

        return Sequence(name, prompt, answer, 0, first, done)


def test_the_closed_form_is_the_sum_of_its_steps() -> None:
    one_by_one = sum(COSTS.steps(1, 3, 700 + 3 * i) for i in range(40))
    assert COSTS.steps(40, 3, 700) == pytest.approx(one_by_one)
    assert COSTS.whole_steps(one_by_one, 99, 3, 700) == 40
    assert COSTS.whole_steps(one_by_one - 0.01, 99, 3, 700) == 39


def test_a_sequence_alone_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    bench = Bench()
    bench.device.join(bench.batch(), bench.sequence("a"))
    bench.engine.run()
    assert bench.first == pytest.approx({"a": 1.5})
    assert bench.done == pytest.approx({"a": 1.5 + sum(0.12 + 0.001 * (101 + i) for i in range(4))})
    assert bench.device.busy_s == pytest.approx(bench.done["a"])


def test_a_newcomer_waits_for_the_step_under_way_and_holds_up_the_others_for_its_prefill() -> None:
    bench = Bench()
    batch = bench.batch()
    bench.device.join(batch, bench.sequence("a", answer=3))
    bench.engine.at(1.6, lambda: bench.device.join(batch, bench.sequence("b", answer=1)))
    bench.engine.run()
    first_step_ends_s = 1.5 + 0.12 + 0.101
    assert bench.first["b"] == pytest.approx(first_step_ends_s + 1.5)
    assert bench.done["b"] == bench.first["b"]
    assert bench.done["a"] == pytest.approx(bench.done["b"] + 0.12 + 0.102)


def test_two_replicas_of_a_device_are_half_as_fast_each() -> None:
    bench = Bench()
    bench.device.join(bench.batch(), bench.sequence("a", answer=1))
    bench.device.join(bench.batch(), bench.sequence("b", prompt=200, answer=1))
    bench.engine.run()
    assert bench.done == pytest.approx({"a": 3.0, "b": 4.0})


def test_what_leaves_keeps_its_whole_steps_and_the_rest_go_on() -> None:
    bench = Bench()
    batch, leaver = bench.batch(), bench.sequence("a", answer=50)
    bench.device.join(batch, leaver)
    bench.device.join(batch, bench.sequence("b", answer=3))
    step_s = COSTS.steps(1, 2, 202)
    bench.engine.at(3.0 + 1.5 * step_s, lambda: bench.device.leave(batch, leaver))
    bench.engine.run()
    assert leaver.emitted_tokens == 2
    assert bench.done == pytest.approx({"b": 3.0 + 1.5 * step_s + COSTS.steps(1, 1, 102)})


def test_one_that_resumes_computes_its_tokens_anew_and_makes_only_the_missing_ones() -> None:
    bench = Bench()
    resumed = bench.sequence("a", answer=21)
    resumed.emitted_tokens = 20
    bench.device.join(bench.batch(), resumed)
    bench.engine.run()
    assert bench.done == pytest.approx({"a": 0.5 + 0.01 * 120})
