"""The cluster on paper that decisions are timed on does what is decided."""

from benchmarks.scheduling.decisions import measure_books, measure_decisions, total_per_s


def test_each_kind_of_decision_comes_to_what_it_is_to_show() -> None:
    warm, cold, evicting, backlog, mixed = measure_decisions(120, workers=64, models=800)
    assert set(warm.done) == {"Place"}
    assert cold.done["Load"] > 0
    assert "Unload" not in cold.done
    assert min(evicting.done["Load"], evicting.done["Unload"], evicting.done["Place"]) > 0
    assert backlog.count >= 120
    assert min(mixed.done[name] for name in ("Place", "Load", "Unload")) > 0
    assert mixed.count >= 120
    assert mixed.wakes != mixed.count
    kinds = (warm, cold, evicting, backlog, mixed)
    assert min(kind.per_s for kind in kinds) <= total_per_s(kinds) <= max(kind.per_s for kind in kinds)


def test_the_books_of_a_larger_cluster_take_more_memory() -> None:
    assert 0 < measure_books(workers=8, models=100) < measure_books(workers=64, models=800)
