"""Models that somebody waits for while nothing is under way for them: who may use memory that becomes free."""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from policy.queues import Waiting

NOBODY: list["Wanting"] = []


class Kind(NamedTuple):
    """What is alike in models of one line: what a replica takes at least, and whose request it is."""

    need_bytes: int
    tenant: str
    priority: int


class Wanting(NamedTuple):
    """A model in a line: those whose requests are more urgent come first."""

    deadline_s: float
    since_s: float
    model: str


class Backlog:
    """Kept by the books. A model stands in a line for each tenant and priority among its requests."""

    def __init__(self) -> None:
        self._lines: dict[Kind, list[Wanting]] = {}
        self._places: dict[str, dict[Kind, Wanting]] = {}

    def put(self, model: str, need_bytes: int, requests: Iterable[Waiting]) -> None:
        """It waits for so much room, on behalf of these requests."""
        places: dict[Kind, Wanting] = {}
        for request in requests:
            kind = Kind(need_bytes, request.tenant, request.priority)
            one = Wanting(_deadline_s(request), request.since_s, model)
            places[kind] = min(places.get(kind, one), one)
        if self._places.get(model) != places:
            self.drop(model)
            self._places[model] = places
            for kind, one in places.items():
                insort(self._lines.setdefault(kind, []), one)

    def drop(self, model: str) -> None:
        """It waits no more, or something is under way for it."""
        for kind, one in self._places.pop(model, {}).items():
            line = self._lines[kind]
            del line[bisect_left(line, one)]
            if not line:
                del self._lines[kind]

    def clear(self) -> None:
        """None waits."""
        self._lines.clear()
        self._places.clear()

    def kinds(self) -> list[Kind]:
        """Of all lines."""
        return list(self._lines)

    def line(self, kind: Kind) -> list[Wanting]:
        """Its models, the most urgent first. Read only."""
        return self._lines.get(kind, NOBODY)


def _deadline_s(request: Waiting) -> float:
    return math.inf if request.deadline_s is None else request.deadline_s
