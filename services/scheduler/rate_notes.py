"""Rates as texts: an entry for each, its name a JSON list, its body a JSON object."""

import json
from collections.abc import Mapping
from functools import partial

import structlog
from pydantic import TypeAdapter, ValidationError

from mesh.state.learnt import Subject
from policy.rates import Learnt, Rate, Rates
from services.scheduler.notes import Topic

log = structlog.get_logger()
RATE: TypeAdapter[Rate] = TypeAdapter(Rate)
LEARNT: TypeAdapter[Learnt] = TypeAdapter(Learnt)


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
            rates.learnt[RATE.validate_json(name)] = LEARNT.validate_json(body)
        except ValidationError:
            log.warning("what was learnt of a rate cannot be read; it is learnt anew", rate=name)


def _body(learnt: Learnt | None) -> str:
    return LEARNT.dump_json(learnt).decode() if learnt else ""
