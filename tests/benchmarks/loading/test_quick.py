"""The whole benchmark, for real, on a tiny model: no figure is looked at but that it is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ("cold_vs_raw_limit", "cold_vs_safetensors", "warm_vs_from_pretrained", "warm_ready_ms", "peak_rss_ratio")


@pytest.mark.slow
def test_the_benchmark_runs_and_ends_with_its_figures(tmp_path: Path) -> None:
    small = ["--quick", "--json", "--parameters", "0.02", "--rounds", "1", "--scratch", str(tmp_path)]
    own = ["--peers-venvs", str(tmp_path / "none"), "--plots", str(tmp_path / "plots")]
    command = [sys.executable, "-m", "benchmarks.loading", *small, *own]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures["peers_missing"] == ["fastsafetensors", "runai-model-streamer", "tensorizer"]
    assert all(figures[key] > 0 for key in KEYS)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "loading-cold.png", "loading-warm.png", "loading-ablation.png"
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]  # what it wrote is gone
