"""How far the simulator is from what happened, from made-up times."""

import json

import pytest

from benchmarks.scheduling.calibration.agreement import agreement
from benchmarks.scheduling.calibration.asking import Seen
from mesh.requests import StartKind
from sim.outcome import LoadDone, Outcome, Run
from sim.request import Request

ASKED = [Request(float(second), "m", 8, 2) for second in range(4)]


def simulated(*firsts_s: float) -> Run:
    outcomes = tuple(
        Outcome(request, request.at_s, request.at_s + first_s, request.at_s + 9.0, "w", 0, 0, 0, None)
        for request, first_s in zip(ASKED, firsts_s, strict=True)
    )
    loads = (LoadDone("w", "m", 0.0, 0.5), LoadDone("w", "m", 2.0, 2.5))
    return Run("ours", outcomes, loads, busy_gpu_s=1.0, held_gpu_s=1.0, simulated_s=10.0, events=1, decisions=1)


def real(*firsts_s: float) -> list[Seen]:
    kinds = (StartKind.DRAM, StartKind.WARM, StartKind.DISK, StartKind.WARM)
    return [Seen(request, kind, s, s + 1.0) for request, kind, s in zip(ASKED, kinds, firsts_s, strict=True)]


def test_ratios_are_of_the_requests_after_the_warm_up() -> None:
    found = agreement(real(100.0, 1.0, 2.0, 3.0), simulated(0.1, 1.1, 2.2, 3.3), warm_up_s=1.0)
    assert found.requests == 3
    assert (found.mean, found.p99) == (pytest.approx(1.1), pytest.approx(1.1))
    assert (found.real.starts, found.simulated.starts) == (1, 1)


def test_the_line_of_figures_has_both_ratios() -> None:
    figures = json.loads(agreement(real(1.0, 1.0, 2.0, 4.0), simulated(1.0, 1.0, 2.0, 2.0), warm_up_s=0.0).json())
    assert figures["ttft_mean_ratio"] == pytest.approx(0.75)
    assert figures["real"]["mean_s"] == pytest.approx(2.0)
