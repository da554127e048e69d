from dataclasses import replace
from pathlib import Path

import pytest

from sim.arrivals import Gaps, Law, Swings
from sim.lengths import TABLES
from sim.request import Request, read, write
from sim.sessions import Sessions
from sim.statistics import fit, statistics
from sim.workload import Scope, Workload

PLAIN = Workload(models=32, rps=5.0, duration_s=7200.0, seed=1)
MARKET = replace(
    PLAIN,
    models=1000,
    skew=1.9,
    swings=Swings(diurnal=0.4, log_cv=1.0, on_share=0.28),
    tenants=7,
    sessions=Sessions(turns=2.0, system_blocks=0),  # about the reuse of Mooncake's conversations, 0.37
    priorities=(0.9, 0.1),
)


def test_the_same_seed_gives_the_same_requests_and_another_gives_others() -> None:
    assert MARKET.requests() == MARKET.requests()
    assert MARKET.requests() != replace(MARKET, seed=2).requests()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    requests = MARKET.requests()[:500]
    write(requests, tmp_path / "w.jsonl")
    assert list(read(tmp_path / "w.jsonl")) == requests
    (tmp_path / "bad.jsonl").write_text('{"at_s": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        list(read(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize("workload", [PLAIN, MARKET, replace(PLAIN, scope=Scope.AGGREGATE, skew=0.9)])
def test_requests_come_in_order_within_the_duration_at_the_mean_rate(workload: Workload) -> None:
    requests = workload.requests()
    times = [request.at_s for request in requests]
    assert times == sorted(times)
    assert 0.0 <= times[0] <= times[-1] < workload.duration_s
    assert len(requests) / workload.duration_s == pytest.approx(workload.rps, rel=0.05)
    assert all(one.prompt_tokens + one.answer_tokens <= workload.context_tokens for one in requests)


@pytest.mark.parametrize("law", Law)
@pytest.mark.parametrize("cv", [0.7, 1.0, 2.0, 4.0])
def test_each_models_gaps_vary_as_asked(law: Law, cv: float) -> None:
    seen = statistics(replace(PLAIN, models=4, gaps=Gaps(law, cv)).requests())
    assert seen.model_gap_cv == pytest.approx(cv, rel=0.12)


def test_a_burst_is_of_a_model_or_of_all_together() -> None:
    wild = replace(PLAIN, gaps=Gaps(Law.GAMMA, 8.0))
    own, shared = statistics(wild.requests()), statistics(replace(wild, scope=Scope.AGGREGATE).requests())
    assert own.model_gap_cv > 6.0 > own.gap_cv
    assert shared.gap_cv > 6.0 > shared.model_gap_cv


def test_popularity_and_lengths_and_reuse_are_as_asked() -> None:
    requests = MARKET.requests()
    seen = statistics(requests, MARKET.models)
    assert seen.zipf == pytest.approx(1.9, abs=0.1)
    assert 0.25 < seen.reuse < 0.5
    assert max(fit(PLAIN.requests(), TABLES["azure-conv"])) < 0.02
    assert {one.tenant for one in requests} == {f"tenant-{i}" for i in range(7)}
    assert sum(one.priority for one in requests) / len(requests) == pytest.approx(0.1, abs=0.02)


def test_a_later_turn_begins_with_the_one_before() -> None:
    last: dict[str, Request] = {}
    turns = 0
    for request in MARKET.requests():
        before = last.get(request.session)
        if before:
            whole = before.blocks[: before.prompt_tokens // 512]
            assert request.blocks[: len(whole)] == whole
            assert (
                request.prompt_tokens >= before.prompt_tokens or request.prompt_tokens + request.answer_tokens == 8192
            )
            turns += 1
        last[request.session] = request
    assert 1.0 + turns / len(last) == pytest.approx(2.0, rel=0.1)  # turns a conversation
