"""What `python -m benchmarks.loading` says, from figures made by hand; measuring is test_quick.py's."""

import json
from pathlib import Path

import pytest

from benchmarks.loading.cold import ColdFigures
from benchmarks.loading.contest import Result, Results
from benchmarks.loading.crowd import Crowd, CrowdFigures
from benchmarks.loading.importing import RING_BYTES, Imported
from benchmarks.loading.peers import PEERS
from benchmarks.loading.report import Figures, say_figures
from benchmarks.loading.residence import ResidenceFigures
from benchmarks.loading.warm import WarmFigures, WarmSize
from benchmarks.loading.wire import WireFigures
from benchmarks.memory import Memory
from benchmarks.series import Series

GB = 10**9
RATIOS = [peer.key for peer in PEERS]


def result(key: str, *seconds: float) -> Result:
    return Result(key, key, 2 * GB, Series.of(seconds))


THEIRS = [result(key, 3.0, 8.0) for key in RATIOS]
LIMITS = [result("raw_16x512k", 0.9, 1.8), result("raw_8x1m", 1.0, 2.0), result("raw_4x4m", 2.0, 2.0)]
OURS = [result("ours", 1.0, 2.0), result("ours_verified", 1.5, 4.0)]
COLD = ColdFigures(Results((*LIMITS, *OURS, *THEIRS), 2), ())
WARM_SIZE = WarmSize(1.1, Results((result("ours", 0.02, 0.04), *THEIRS), 2), Series.of([0.01]))
WARM = WarmFigures(WARM_SIZE, (), ())
RESIDENCE = ResidenceFigures(2 * GB, Memory(GB // 4, 2 * GB, GB // 4), Memory(GB // 4 + GB // 10, 2 * GB, GB // 4))


def test_the_json_has_the_keys_that_others_lean_on() -> None:
    figures = json.loads(Figures(cold=COLD, warm=WARM, residence=RESIDENCE).json())
    needed = {"cold_vs_raw_limit", "warm_ready_ms", "peak_rss_ratio"}
    needed |= {f"{mode}_vs_{key}" for mode in ("cold", "warm") for key in RATIOS}
    assert needed <= set(figures)


def test_the_limit_is_the_raw_setting_with_the_best_median_and_one_is_as_fast_as_it() -> None:
    figures = json.loads(Figures(cold=COLD).json())
    assert COLD.limit_key == "raw_16x512k"
    assert figures["cold_vs_raw_limit"] == 0.9
    assert figures["cold_verified_vs_raw_limit"] == pytest.approx((0.9 / 1.5 + 1.8 / 4.0) / 2, abs=1e-4)


def test_a_peer_that_takes_three_times_as_long_is_a_ratio_of_three() -> None:
    figures = json.loads(Figures(cold=COLD, warm=WARM).json())
    assert figures["cold_vs_runai"] == 3.5  # 3 and 4, round by round
    assert figures["warm_vs_runai"] == 175.0  # 150 and 200
    assert figures["warm_ready_ms"] == 30.0


def test_a_peer_that_is_not_installed_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    cold = ColdFigures(Results((*LIMITS, *OURS, *THEIRS[:3]), 2), ("tensorizer",))
    figures = json.loads(Figures(cold=cold).json())
    assert "cold_vs_tensorizer" not in figures
    assert figures["peers_missing"] == ["tensorizer"]
    say_figures(Figures(cold=cold))
    assert "not installed, so left out: tensorizer" in capsys.readouterr().out


def test_memory_is_what_the_load_added_and_the_pool_that_it_went_to() -> None:
    assert RESIDENCE.ratio == pytest.approx(1.05)
    assert RESIDENCE.all_ratio == pytest.approx(1.3)


def test_loads_at_once_are_compared_with_one_round_by_round() -> None:
    even = Series.of([0.9, 1.0])
    crowds = tuple(Crowd(count, Series.of([rate, 2 * rate]), even) for count, rate in ((1, 2.0), (2, 1.9), (4, 1.8)))
    figures = json.loads(Figures(crowd=CrowdFigures(crowds)).json())
    assert figures["two_loads_vs_one"] == 0.95
    assert figures["four_loads_vs_one"] == 0.9
    assert figures["two_loads_fairness"] == 0.95


def test_a_part_that_was_not_measured_is_left_out_of_the_json() -> None:
    wire = WireFigures(Series.of([1.0]), Series.of([4.0]))
    assert json.loads(Figures(wire=wire).json()) == {"peer_vs_tcp": 0.25, "peer_gb_per_s": 1.0, "tcp_gb_per_s": 4.0}


def imported(peak_bytes: int) -> Imported:
    units = ((0, 100), (4096, RING_BYTES))
    return Imported("d", 4 * GB, Path("source"), 3 * GB, 2.0, peak_bytes, units, part_files=())


def test_an_import_is_rated_by_its_source_and_its_memory_by_two_units_and_the_ring() -> None:
    figures = json.loads(Figures(imported=imported(100 + 3 * RING_BYTES), least_imported=imported(100)).json())
    assert figures["import_gb_per_s"] == 1.5
    assert figures["import_largest_unit_bytes"] == RING_BYTES
    assert figures["import_memory_over_bound"] == 1.0
