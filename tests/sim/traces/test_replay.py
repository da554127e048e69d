import subprocess
import sys
from argparse import ArgumentTypeError
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sim.policies import POLICIES
from sim.run import simulate
from sim.traces.replay import Assignment, Replay, parse
from sim.traces.row import BadTrace, Window
from sim.workload import model_name
from tests.sim.paper import cluster


@pytest.fixture
def calls(tmp_path: Path) -> Replay:
    """600 calls, one a second, of six functions in turn."""
    lines = [f"app,f{i % 6},{float(i) + 2.0},2.0" for i in range(600)]
    path = tmp_path / "calls.csv"
    path.write_text("\n".join(["app,func,end_timestamp,duration", *lines]))
    return Replay("azure-functions-2021", path, models=3, lengths="gsm8k-like")


def functions_of(replay: Replay) -> dict[str, set[int]]:
    """By model: the functions whose calls it gets, known by their seconds."""
    found: dict[str, set[int]] = {}
    for request in replay.requests():
        found.setdefault(request.model, set()).add(round(request.at_s) % 6)
    return found


def test_functions_go_to_models_by_turns_or_in_blocks(calls: Replay) -> None:
    names = [model_name(i) for i in range(3)]
    assert functions_of(calls) == dict(zip(names, ({0, 3}, {1, 4}, {2, 5}), strict=True))
    in_blocks = replace(calls, assignment=Assignment.BLOCKS)
    assert functions_of(in_blocks) == dict(zip(names, ({0, 1}, {2, 3}, {4, 5}), strict=True))


def test_a_window_begins_anew_and_a_rate_leaves_requests_out(calls: Replay) -> None:
    part = replace(calls, window=Window(100.0, 300.0))
    times = [request.at_s for request in part.requests()]
    assert (times[0], times[-1], len(times)) == (0.0, 299.0, 300)
    thin = replace(part, rps=0.5).requests()
    assert len(thin) == pytest.approx(150, rel=0.2)
    assert thin == replace(part, rps=0.5).requests()
    assert thin != replace(part, rps=0.5, seed=1).requests()
    assert set(times) >= {request.at_s for request in thin}


def test_more_than_a_trace_has_is_not_made_up(calls: Replay) -> None:
    with pytest.raises(BadTrace, match="has 600 requests in this window, and 1200 are wanted"):
        replace(calls, window=Window(0.0, 600.0), rps=2.0).requests()
    with pytest.raises(BadTrace, match="has 0 requests"):
        replace(calls, window=Window(9000.0, 1.0)).requests()


def test_models_of_a_trace_without_keys_are_drawn_and_its_tokens_are_kept(tmp_path: Path) -> None:
    lines = [f"2023-11-16 18:{i // 60:02d}:{i % 60:02d},{100 + i},{1 + i % 7}" for i in range(600)]
    path = tmp_path / "llm.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    requests = Replay("azure-llm-2023", path, models=10, skew=1.5).requests()
    assert [request.prompt_tokens for request in requests] == [100 + i for i in range(600)]
    counts = Counter(request.model for request in requests)
    share = 1.0 / sum(rank**-1.5 for rank in range(1, 11))
    assert counts[model_name(0)] / 600 == pytest.approx(share, abs=0.06)


def test_counts_come_somewhere_in_their_minute(tmp_path: Path) -> None:
    header = ",".join(["HashOwner", "HashApp", "HashFunction", "Trigger", *map(str, range(1, 1441))])
    path = tmp_path / "day.csv"
    path.write_text(f"{header}\no,a,f,http,0,500{',0' * 1438}\n")
    times = [request.at_s for request in Replay("azure-functions-2019", path, models=1).requests()]
    assert len(times) == 500
    assert 60.0 <= times[0] < 63.0
    assert 117.0 < times[-1] < 120.0


def test_a_trace_can_be_simulated(calls: Replay) -> None:
    requests = replace(calls, rps=0.1, window=Window(0.0, 600.0)).requests()
    spec = cluster(*[model_name(i) for i in range(3)], workers=3, disk_bytes_per_s=5.0)
    run = simulate(spec, requests, POLICIES["best-free"](0))
    assert len(run.outcomes) == len(requests)
    assert not any(one.lost for one in run.outcomes)


def test_a_trace_is_named_by_format_and_path() -> None:
    assert parse("mooncake:/some/where.jsonl") == ("mooncake", Path("/some/where.jsonl"))
    for wrong in ("mooncake", "moon:/x"):
        with pytest.raises(ArgumentTypeError, match="FORMAT:PATH"):
            parse(wrong)


def test_the_command_compares_policies_on_a_trace_and_says_what_is_wrong_with_one(calls: Replay) -> None:
    command = [sys.executable, "-m", "sim", "compare", "--workload", "6.7b-gsm8k-0.2", "--seeds", "2"]
    command += ["--policies", "best-free,random", "--trace-rps", "0.1", "--trace-for", "600", "--trace"]
    told = subprocess.run([*command, f"azure-functions-2021:{calls.path}"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in told.stdout.splitlines()[:3]] == ["policy", "best-free", "random"]
    for wrong, complaint in ((f"azure-llm-2023:{calls.path}", "line 1"), (f"moon:{calls.path}", "FORMAT:PATH")):
        ended = subprocess.run([*command, wrong], capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert complaint in ended.stderr
