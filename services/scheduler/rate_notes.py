"""Rates as texts: an entry for each, its name a JSON list, its body a JSON object."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import structlog
from pydantic import TypeAdapter, ValidationError

from mesh.state.learnt import Subject
from policy.rates import Learnt, Rate, Rates
from services.scheduler.notes import Topic

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of what was learnt: the policy's own record may be machine code, which pydantic cannot fill."""

    mean_s: float
    variance: float
    noise: float


KEPT: TypeAdapter[Kept] = TypeAdapter(Kept)
RATE: TypeAdapter[Rate] = TypeAdapter(Rate)


def rates_topic(rates: Rates) -> Topic:
    """How long things take."""
    return Topic(Subject.RATES, lambda: bool(rates.changed), partial(news, rates), partial(recall, rates))


def news(rates: Rates) -> dict[str, str]:
    """What has changed; empty where it was forgotten."""
    changed = sorted(rates.changed)
    rates.changed.clear()
    return {json.dumps(rate): _body(rates.learnt.get(rate)) for rate in changed}


def recall(rates: Rates, entries: Mapping[str, str]) -> None:
    """Takes what can be read; what cannot is learnt anew."""
    for name, body in entries.items():
        try:
            rate, kept = RATE.validate_json(name), KEPT.validate_json(body)
            rates.recall(rate, Learnt(kept.mean_s, kept.variance, kept.noise))
        except ValidationError:
            log.warning("what was learnt of a rate cannot be read; it is learnt anew", rate=name)


def _body(learnt: Learnt | None) -> str:
    if learnt is None:
        return ""
    return KEPT.dump_json(Kept(learnt.mean_s, learnt.variance, learnt.noise)).decode()
