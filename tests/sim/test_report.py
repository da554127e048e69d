import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.knobs import Knobs
from sim.compare import Sample, compare, of_seed
from sim.judgement import Judgement
from sim.report import differences, figures, gap_closed, interval, ratio, table
from sim.run import simulate
from sim.scenarios import Scenario
from sim.workload import Workload
from tests.sim.paper import ask, cluster


def a_run(*models: str, hold_s: float = 500.0):  # type: ignore[no-untyped-def]
    requests = [ask(10.0 * i, model) for i, model in enumerate(models)]
    return simulate(cluster("a", "b"), requests, Judgement(Knobs(keep_alive_s=1000.0, hold_s=hold_s)))


def a_sample(*models: str) -> Sample:
    run = a_run(*models)
    return Sample(figures(run), np.array([one.latency_s for one in run.outcomes]), run)


def test_a_refusal_counts_with_the_time_that_it_took() -> None:
    found = figures(a_run("a", hold_s=4.0))
    assert (found.refused, found.lost, found.p99_s) == (1, 0, pytest.approx(4.0))


def test_latencies_run_from_arrival_to_the_first_token() -> None:
    found = figures(a_run("a", "b", "b"))
    assert (found.loads, found.refused) == (2, 0)
    b_first_s = 11.7 + 0.25 + 11.5
    assert found.p50_s == pytest.approx(11.5)
    assert found.mean_s == pytest.approx((11.5 + (b_first_s - 10.0) + (b_first_s + 1.0 - 20.0)) / 3)


def test_an_interval_holds_the_mean_and_what_both_share_cancels_out() -> None:
    luck = [1.0, 50.0, 7.0, 300.0, 20.0]
    alone, paired = interval(luck), differences(luck, [one + 2.0 for one in luck])
    assert alone.low < alone.mean < alone.high
    assert (paired.low, paired.mean, paired.high) == pytest.approx((2.0, 2.0, 2.0))


def test_a_table_has_a_row_a_policy_and_the_drawings_are_the_same_for_the_same_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from sim.plots import draw

    two = {"one": [a_sample("a", "b")], "other": [a_sample("a", "a")]}
    rows = {name: [one.figures for one in each] for name, each in two.items()}
    assert [line.split()[0] for line in table(rows).splitlines()] == ["policy", "one", "other"]
    for name in ("x", "y"):
        draw(two, tmp_path / name)
    drawn = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert drawn == ["latency.svg", "timeline-one.svg", "timeline-other.svg"]
    for name in drawn:
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_policies_meet_the_same_requests_seed_by_seed() -> None:
    scenario = Scenario(cluster("model-00000"), lambda seed: Workload(1, 0.1, 60.0, seed, lengths=("gsm8k-like",)))
    ours, other = of_seed(scenario, ["whimbrel", "whimbrel-no-keep-alive"], 0)
    assert ours.run
    assert other.run
    assert [one.request for one in ours.run.outcomes] == [one.request for one in other.run.outcomes]
    assert [one.request for one in ours.run.outcomes] != scenario.workload(1).requests()


def test_what_comes_before_the_warm_up_is_over_is_not_counted() -> None:
    run = a_run("a", "a", "a")
    assert figures(run, from_s=5.0).mean_s == pytest.approx((2.5 + 1.0) / 2)
    assert figures(run).mean_s == pytest.approx((11.5 + 2.5 + 1.0) / 3)
    with pytest.raises(ValueError, match="no request"):
        figures(run, from_s=100.0)


def test_devices_are_counted_for_as_long_as_they_hold_load_or_compute() -> None:
    found = figures(a_run("a"))
    load_s, prefill_s, steps_s = 10.5, 1.0, 0.2
    assert found.loading_gpu_s == pytest.approx(load_s)
    assert found.busy_gpu_s == pytest.approx(prefill_s + steps_s)
    assert found.held_gpu_s == pytest.approx(load_s + prefill_s + steps_s)


def test_a_ratio_is_of_means_and_a_gap_is_closed_by_how_far_we_have_come() -> None:
    assert (ratio([1.0, 3.0], [4.0, 4.0]).mean) == 2.0
    rows = {
        name: [replace(figures(a_run("a")), p99_s=p99_s)] for name, p99_s in (("us", 4.0), ("luck", 10.0), ("b", 2.0))
    }
    assert gap_closed(rows, "p99_s", "us", "luck", "b") == pytest.approx(0.75)


@pytest.mark.slow
def test_as_many_processes_as_one_likes_find_the_same() -> None:
    names = ["whimbrel", "whimbrel-no-keep-alive"]
    alone, shared = compare("6.7b-gsm8k-0.2", names, 2), compare("6.7b-gsm8k-0.2", names, 2, jobs=2)
    for name in names:
        assert [one.figures for one in alone[name]] == [one.figures for one in shared[name]]


def test_the_command_refuses_a_policy_that_it_does_not_know() -> None:
    command = [sys.executable, "-m", "sim", "compare", "--policies", "nobody"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no policy is called nobody" in ended.stderr


def test_the_command_prints_a_workload_beside_what_was_asked_for() -> None:
    command = [sys.executable, "-m", "sim", "workload", "6.7b-gsm8k-0.2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "in the long run: 0.2" in printed
