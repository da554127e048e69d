"""Each fuzzer, for a bounded number of runs: it finds nothing, and it would have."""

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = 20_000


def fuzz(target: str, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """python -m tests.fuzz.<target>; its finds are left in `directory`."""
    pytest.importorskip("atheris", reason="atheris is not installed; it is in the extra 'fuzz'")
    command = [sys.executable, "-m", f"tests.fuzz.{target}", f"-artifact_prefix={directory}/", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["layout", "codec", "shards"])
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    ended = fuzz(target, tmp_path, f"-runs={RUNS}", "-seed=1")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert f"Done {RUNS} runs" in ended.stderr
    assert not list(tmp_path.iterdir())
