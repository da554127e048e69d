"""What `python -m benchmarks.serving` says, from figures made by hand; measuring is not tested here."""

import json

import pytest

from benchmarks.series import Series
from benchmarks.serving.cold import ColdFigures, ColdRound
from benchmarks.serving.dispatch import DispatchFigures, DispatchRound
from benchmarks.serving.peer_process import FreshStart
from benchmarks.serving.relay import RelayFigures
from benchmarks.serving.report import Figures, say_figures
from benchmarks.serving.stage import Answer
from mesh.clients.gateway_records import Finished, Started
from mesh.requests import FinishReason, StartKind, StartTimes

TIMES = StartTimes(queue_s=0.01, load_s=0.2)


def cold_round(ours_s: float, peer_s: float, peers_token: int = 7) -> ColdRound:
    started = Started("r", "worker-1", StartKind.DRAM, TIMES, prompt_tokens=6, checkpoint="c")
    finished = Finished(FinishReason.LENGTH, 6, 1, StartKind.DRAM, TIMES, ours_s - 0.004, ours_s, "worker-1", "", "c")
    peer = FreshStart(import_s=4.0, load_s=1.0, generate_s=0.5, prompt_tokens=6, first_token=peers_token)
    return ColdRound(Answer(started, 7, ours_s, finished), peer, peer_s)


COLD = ColdFigures(1.0, 2, (cold_round(0.5, 6.0), cold_round(0.4, 6.0, peers_token=8), cold_round(0.3, 6.0)))
RELAY = RelayFigures(0.1, 1, 128, served=Series.of([95.0, 97.0]), direct=Series.of([100.0, 100.0]))
CPU = {"gateway": 700.0, "scheduler": 400.0, "worker": 100.0}


def test_the_json_has_the_keys_that_others_lean_on() -> None:
    dispatch = DispatchFigures(48, (DispatchRound(900.0, CPU, 1200.0), DispatchRound(800.0, CPU, 1100.0)))
    figures = json.loads(Figures(COLD, RELAY, dispatch).json())
    assert figures["cold_ttft_speedup"] == 15.0
    assert figures["relay_efficiency"] == 0.96
    assert figures["warm_dispatch_rps"] == 1150.0


def test_a_part_that_was_not_measured_is_left_out_of_the_json() -> None:
    assert set(json.loads(Figures(relay=RELAY).json())) == {
        "relay_efficiency", "served_tokens_per_s", "direct_tokens_per_s"
    }  # fmt: skip


def test_without_h2load_the_rate_is_that_of_the_asyncio_clients() -> None:
    dispatch = DispatchFigures(48, (DispatchRound(900.0, CPU, None),))
    assert json.loads(Figures(dispatch=dispatch).json())["warm_dispatch_rps"] == 900.0


def test_the_report_says_where_a_cold_starts_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    say_figures(Figures(cold=COLD))
    said = capsys.readouterr().out
    assert "queue 10, load 200, first step 186, wire 4 ms" in said
    assert "import 4000, load 1000, generate 500 ms" in said
    assert "same first token in 2 of 3 rounds" in said
