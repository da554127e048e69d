"""What `python -m benchmarks.engine` says, from figures made by hand; measuring is test_quick.py's."""

import json

import pytest

from benchmarks.engine.levels import LevelFigures, LevelHeat
from benchmarks.engine.overhead import Overhead
from benchmarks.engine.prefix import PrefixFigures
from benchmarks.engine.race import Result
from benchmarks.engine.report import Figures, say_figures
from benchmarks.engine.start import SHAPES, PartFigures, StartFigures, Table
from benchmarks.engine.throughput import Heat, ThroughputFigures
from benchmarks.series import Series

PEERS = ("generate", "hf_cb", "vllm_cpu")


def result(key: str, *rates: float) -> Result:
    return Result(key, key, Series.of(rates), Series.of([2 * rate for rate in rates]), Series.of([0.25, 0.5]))


def heat(dtype: str, prompts: int, theirs: float) -> Heat:
    ours = {"ours": result("ours", 100.0, 100.0)}
    return Heat(dtype, prompts, ours | {key: result(key, theirs, theirs) for key in PEERS})


HEATS = tuple(heat(dtype, n, rate) for n in (1, 8, 32) for dtype, rate in (("bfloat16", 50.0), ("float32", 80.0)))
FIGURES = Figures(2, ThroughputFigures(HEATS, ()), PrefixFigures(1500, Series.of([2.0, 3.0]), Series.of([0.1, 0.1])))


def test_the_json_has_the_keys_that_others_lean_on() -> None:
    figures = json.loads(FIGURES.json())
    assert {"vs_vllm_cpu_b1", "vs_vllm_cpu_b8", "vs_vllm_cpu_b32"} <= set(figures)
    assert {"vs_generate_b1", "vs_generate_b8", "prefix_hit_speedup"} <= set(figures)


def test_what_is_said_of_a_batch_size_holds_in_each_precision() -> None:
    figures = json.loads(FIGURES.json())
    assert figures["vs_vllm_cpu_b8_bf16"] == 2.0
    assert figures["vs_vllm_cpu_b8_fp32"] == 1.25
    assert figures["vs_vllm_cpu_b8"] == 1.25


def test_ratios_are_of_rounds_and_a_quick_first_token_is_a_high_one() -> None:
    slow = Result("generate", "generate", Series.of([50.0, 10.0]), Series.of([1.0, 1.0]), Series.of([1.0, 1.0]))
    only = Heat("bfloat16", 1, {"ours": result("ours", 100.0, 100.0), "generate": slow})
    figures = json.loads(Figures(1, ThroughputFigures((only,), ())).json())
    assert figures["vs_generate_b1"] == 6.0  # 2 and 10
    assert figures["ttft_vs_generate_b1_bf16"] == 3.0  # 4 and 2
    assert figures["tokens_per_s_b1_bf16"] == {"ours": 100.0, "generate": 30.0}


def test_a_hit_is_compared_with_the_miss_of_its_round() -> None:
    assert json.loads(FIGURES.json())["prefix_hit_speedup"] == 25.0


def test_a_peer_that_is_not_installed_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    heats = (Heat("bfloat16", 1, {"ours": result("ours", 1.0), "generate": result("generate", 1.0)}),)
    figures = Figures(2, ThroughputFigures(heats, ("vllm-cpu, eager",)))
    assert not any("vllm" in key for key in json.loads(figures.json()))
    say_figures(figures)
    assert "not installed, so left out: vllm-cpu, eager" in capsys.readouterr().out


def test_a_part_that_was_not_measured_is_left_out_of_the_json() -> None:
    assert json.loads(Figures(2).json()) == {"threads": 2}


def test_a_level_costs_what_it_takes_of_the_tokens_of_a_second_of_processor_time() -> None:
    results = {"fast": result("fast", 100.0), "batch_invariant": result("b", 75.0), "path_invariant": result("p", 50.0)}
    figures = json.loads(Figures(1, levels=LevelFigures((LevelHeat("float32", 8, results),))).json())
    assert figures["overhead_batch_invariant_b8_fp32"] == 0.25
    assert figures["overhead_path_invariant_b8_fp32"] == 0.5


def table(**elapsed_s: float) -> Table:
    one = Series.of([1.0])
    return {name.replace("_", " "): PartFigures(Series.of([value]), one) for name, value in elapsed_s.items()}


def test_a_start_goes_from_the_order_to_the_first_token_and_a_new_process_imports_before_it() -> None:
    load = {"next_token": 9.0, "first_token": 0.25}
    start = StartFigures(
        imports=table(torch=1.0, transformers=2.0),
        fresh=table(order_to_replica=0.75, **load),
        ready=table(order_to_replica=0.25, **load),
        shapes={name: table(assign_again=layers * 0.0005) for name, layers in SHAPES.items()},
    )
    figures = json.loads(Figures(1, start=start).json())
    assert figures["start_ready_first_token_ms"] == 500.0
    assert figures["start_vs_new_process"] == 8.0
    assert figures["assign_ms_a_layer"] == {"100m": 0.5, "8b": 0.5, "70b": 0.5}
    say_figures(Figures(1, start=start))


def test_a_step_is_told_with_the_part_of_it_that_is_the_engines_own() -> None:
    steps = (Overhead(8, Series.of([0.008]), Series.of([0.0004])),)
    figures = json.loads(Figures(1, overhead=steps).json())
    assert (figures["step_ms_b8"], figures["step_outside_pass_b8"]) == (8.0, 0.05)
