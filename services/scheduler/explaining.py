"""Answers why requests for a model are where they are: the policy's reasons, past loads, and what has been learnt."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

from mesh.explanation import Explanation, LearntRate, PastLoad
from mesh.facts import ModelEntry
from mesh.state.catalogue import unknown_model
from policy.alternatives import stated
from policy.explain import explain
from policy.knobs import Knobs
from policy.rates import Rates
from policy.transfer import LINKS
from policy.view import View
from services.scheduler.learning import Learning

LOADS_SHOWN = 8


def explanation(view: View, model: str, learning: Learning, now: float, knobs: Knobs) -> Explanation:
    """Of this moment. NotFound for a model that is not deployed."""
    entry = view.cluster.models.get(model)
    if entry is None:
        raise unknown_model(model)
    *held, newcomer = explain(view, entry, now, knobs)
    return Explanation(
        model=model,
        held=tuple(held),
        waiting=len(view.queues.of(model)),
        next=newcomer,
        loads=tuple(islice(_loads(learning, model), LOADS_SHOWN)),
        rates=tuple(_rates(view.rates, entry, {one.node for one in newcomer.alternatives})),
    )


def _loads(learning: Learning, model: str) -> Iterator[PastLoad]:
    for lesson in learning.of_model(model):
        spot = lesson.spot
        yield PastLoad(spot.worker_id, spot.digest, lesson.farthest, stated(lesson.predicted), lesson.took_s)


def _rates(rates: Rates, entry: ModelEntry, nodes: Iterable[str]) -> Iterator[LearntRate]:
    """Those that its estimates are made of."""
    version = entry.checkpoint
    whose = {"", entry.name, version.digest, version.architecture, *LINKS}
    for rate, learnt in sorted(rates.learnt.items()):
        if rate.of in whose and rate.node in ("", *nodes):
            yield LearntRate(rate.quantity, rate.node, rate.of, learnt.mean_s, math.sqrt(learnt.noise))
