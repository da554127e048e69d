"""Histories of demand as texts: an entry for each model, by its name. Moments are the wall's, for the next leader has a
clock of its own. How fast requests come is learnt anew."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog
from pydantic import TypeAdapter, ValidationError

from mesh.clock import Clock
from mesh.state.learnt import Subject
from policy.demand import Demand
from policy.history import BINS, History
from services.scheduler.notes import Topic

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one model: when it was asked last, and the weights of the pauses before, as they were then."""

    last_unix_s: float
    weights: tuple[float, ...]


KEPT: TypeAdapter[Kept] = TypeAdapter(Kept)


def demand_topic(demand: Demand, clock: Clock, wall: Callable[[], float] = time.time) -> Topic:
    """When models are asked for."""
    epoch_s = partial(_epoch_s, clock, wall)
    return Topic(
        Subject.DEMAND, lambda: bool(demand.changed), partial(news, demand, epoch_s), partial(recall, demand, epoch_s)
    )


def news(demand: Demand, epoch_s: Callable[[], float]) -> dict[str, str]:
    """The models that were asked since; empty where one was forgotten."""
    changed, zero_s = sorted(demand.changed), epoch_s()
    demand.changed.clear()
    return {model: _body(demand.histories.get(model), zero_s) for model in changed}


def recall(demand: Demand, epoch_s: Callable[[], float], entries: Mapping[str, str]) -> None:
    """Takes what can be read; what cannot is learnt anew."""
    zero_s = epoch_s()
    for model, body in entries.items():
        try:
            kept = KEPT.validate_json(body)
        except ValidationError:
            log.warning("what was learnt of a model's demand cannot be read; it is learnt anew", model=model)
            continue
        if len(kept.weights) == BINS:
            demand.recall(model, kept.last_unix_s - zero_s, kept.weights)


def _body(history: History | None, zero_s: float) -> str:
    if history is None:
        return ""
    weights = tuple(round(weight, 4) for weight in history.weights)
    return KEPT.dump_json(Kept(history.last_s + zero_s, weights)).decode()


def _epoch_s(clock: Clock, wall: Callable[[], float]) -> float:
    """The wall's reading when our own clock's is 0."""
    return wall() - clock.now()
