"""Work that processes share runs there as it would here."""

import os
from pathlib import Path

import pytest

import policy
import sim
from sim.processes import spread


def ran(number: int) -> tuple[int, int, list[str]]:
    """Where, and of what."""
    return number, os.getpid(), [*policy.__path__, *sim.__path__]


def test_other_processes_use_what_is_compiled_where_this_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "__path__", [str(tmp_path), *sim.__path__])  # where it would lie
    done = list(spread(ran, range(4), jobs=2))
    assert sorted(number for number, _, _ in done) == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process, _ in done}
    assert {tuple(path) for _, _, path in done} == {(*policy.__path__, *sim.__path__)}


def test_one_job_is_done_here_and_in_order() -> None:
    assert [done[:2] for done in spread(ran, range(3), jobs=1)] == [(number, os.getpid()) for number in range(3)]
