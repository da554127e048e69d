"""Whatever has happened: workers found by the index are those that a plain search of all finds."""

import random
from collections.abc import Iterable

import pytest

from mesh.facts import ModelEntry
from policy.candidates import FAR, free_candidates, least_need_bytes
from policy.offers import Offers
from policy.size import full_bytes, need_bytes
from policy.view import NOBODY, View
from tests.policy.history import DIGESTS, KNOBS, History
from tests.policy.scene import store, worker

MEMBERS = (  # those afar are more, and have more memory
    *(worker(f"w{number}", memory=memory) for number, memory in ((1, 40), (2, 40), (3, 60))),
    *(worker(f"w{number}", memory=90, node="n2") for number in range(4, 10)),
    store("s1", *DIGESTS),
    store("s2", *DIGESTS, node="n3"),
)
THINGS = ("ask",) * 6 + ("complete",) * 5 + ("leave", "wait", "report", "update", "turn", "fail")


def lies_on(view: View, digest: str) -> list[str]:
    """The nodes whose stores have something of a checkpoint."""
    stores = [member for member in view.cluster.members.values() if member.store]
    return sorted({one.node for one in stores if one.store and one.store.held(digest)})


def able(view: View, entry: ModelEntry, now: float) -> list[str]:
    """Workers that may get a replica."""
    digest, replicas = entry.checkpoint.digest, view.replicas
    taken = {seat.spot for seat in replicas.everywhere()} | view.loading
    there = {spot.worker_id for spot in taken if (spot.model, spot.digest) == (entry.name, digest)}
    found = [member for member in view.workers() if member.worker and not view.cluster.is_draining(member)]
    found = [one for one in found if one.id not in there and not view.distrusts(one.id, now)]
    return [one.id for one in found if one.worker and full_bytes(entry, one.worker) <= one.worker.memory_bytes]


def free_bytes(view: View, names: Iterable[str]) -> dict[str, int]:
    """Memory left on each."""
    return {name: view.index.account(name).free_bytes for name in names}


@pytest.mark.parametrize("seed", range(12))
def test_free_workers_are_the_least_loaded_of_each_node_and_the_freest_of_all(seed: int) -> None:
    history, chance, looked = History(MEMBERS), random.Random(seed), 0
    for _ in range(60):
        history.happen(chance.choice(THINGS), chance.randrange(420))
        held = store("s2", *chance.sample(DIGESTS, 2), node="n3")
        history.members = {**history.members, "store/s2": held} if chance.random() < 0.2 else history.members
        view, decision = history.decide()
        history.act(decision)
        for entry in [one for one in view.cluster.models.values() if not one.checkpoint.base]:
            digest, least, now = entry.checkpoint.digest, least_need_bytes(view, entry), history.now
            assert list(view.index.sources.nodes(digest)) == lies_on(view, digest)
            free = free_bytes(view, able(view, entry, now))
            expected = set(sorted((name for name in free if free[name] >= least), key=lambda n: (-free[n], n))[:FAR])
            for node in lies_on(view, digest):
                near = {m.id: m.worker for m in view.workers() if m.node == node and m.id in free and m.worker}
                takes = [
                    (len(view.replicas.loads_on(name)), -free[name], name)
                    for name, worker in near.items()
                    if free[name] >= max(least, need_bytes(view, entry, view.index.workers[name], worker))
                ]
                expected |= {name for _, _, name in sorted(takes)[:1]}
            found = free_candidates(view, entry, now, Offers(view, entry, KNOBS), NOBODY)
            if view.index.sources.has(digest):
                assert {one.member.id for one in found} == expected
                looked += len(expected)
    assert looked > 0
