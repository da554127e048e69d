"""The matrix in pieces: what is written down is found again, and compared over the seeds that all have had."""

from pathlib import Path

import pytest

from benchmarks.scheduling.matrix import runs
from benchmarks.scheduling.matrix.cells import Cell, Found, experiments, read, summary, write
from benchmarks.scheduling.matrix.runs import CASES, COMPARED, LONG, cells
from sim.report import Figures


def found(policy: str, seed: int, mean_s: float) -> Found:
    figures = Figures(mean_s, 0.1, 2.0 * mean_s, 1.0, 0.0, 0.0, 0.0, 3.0, 9.0, 1.0, 20.0)
    return Found(Cell("market", policy, seed), figures, (0.1, mean_s), 0.5)


def test_every_cell_is_run_once_and_each_case_before_any_has_many_seeds() -> None:
    whole = cells((*CASES, *LONG), range(30))
    assert len(set(whole)) == len(whole) == 30 * len((*CASES, *LONG)) * len(COMPARED)
    assert {cell.case for cell in whole[: len(CASES) * len(COMPARED)]} == set(CASES)
    assert cells(["market"], range(3, 5)) == [Cell("market", policy, seed) for seed in (3, 4) for policy in COMPARED]


def test_what_was_written_is_read_once_whoever_wrote_it_and_a_line_that_was_cut_off_is_not(tmp_path: Path) -> None:
    one, other = found("whimbrel", 0, 1.0), found("random", 0, 4.0)
    for name in ("a.jsonl", "b.jsonl"):
        with (tmp_path / name).open("w") as file:
            write(file, one)
            write(file, other)
            file.write('{"case": "market", "pol')
    assert list(read(tmp_path)) == [one, other]


def test_policies_are_compared_over_the_seeds_that_all_have_had() -> None:
    runs = [found("random", 0, 4.0), found("whimbrel", 0, 1.0), found("whimbrel", 1, 9.0), found("lazy", 0, 0.5)]
    (compared,) = experiments([*runs, found("random", 1, 4.0)])
    assert {name: [one.mean_s for one in rows] for name, rows in compared.rows.items()} == {
        "whimbrel": [1.0],
        "random": [4.0],
        "lazy": [0.5],
    }
    assert "market | 1 | mean | 1.000 | lazy 0.500 | - | - | lazy" in summary([compared])


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LONGEST_S", 0.01)
    assert runs.found(Cell("6.7b-gsm8k-1.4", "whimbrel", 0)) is None
    monkeypatch.undo()
    assert runs.found(Cell("6.7b-gsm8k-0.2", "random", 0)) is not None


def test_how_far_anybody_could_be_ahead_is_said_where_the_paper_s_policy_and_the_bound_were_run() -> None:
    rows = [found("whimbrel", 0, 2.0), found("serverlessllm", 0, 3.0), found("first-loads", 0, 1.0)]
    (one,) = experiments(rows)
    assert one.most()["p99_s"].mean == pytest.approx(3.0)
    assert one.ways_come() == pytest.approx({"mean_s": 0.5, "p99_s": 0.5})
    assert "of the way there: 0.500" in one.text()
    assert one.ahead_of_us("p99_s") == []
    (without,) = experiments(rows[:2])
    assert without.most() == without.ways_come() == {}
