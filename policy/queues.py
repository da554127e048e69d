"""Requests without a place: by model in order of service, and by the moment at which each began to wait."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from mesh.facts import Priority
from policy.timeline import Timeline

NOBODY: frozenset[int] = frozenset()
NONE: dict[str, "Waiting"] = {}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without a place. Times are the decider's clock."""

    request_id: str
    model: str
    since_s: float
    excluded: frozenset[int] = NOBODY  # workers that just failed it, by the fences of their leases
    current_only: bool = False  # no former version of the model will do
    tenant: str = ""
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None  # for the first token, a moment
    prompt_tokens: int = 0
    digest: str = ""  # no other version of the model will do: its answer has begun
    stays: bool = False  # it cannot go on elsewhere once it has a place

    @property
    def odd(self) -> bool:
        """Whether it may fare otherwise than others of its model."""
        return self.current_only or bool(self.excluded or self.digest)


class Queues(Collection[Waiting]):
    """Kept as requests come and go; iterates in order of arrival."""

    def __init__(self, requests: Iterable[Waiting] = ()) -> None:
        self._all: dict[str, Waiting] = {}
        self._of: dict[str, dict[str, Waiting]] = {}
        self._numbers: dict[str, int] = {}
        self._next = itertools.count()
        self.since: Timeline[str] = Timeline()
        self.again: Timeline[str] = Timeline()  # when requests are to be looked at again, as decisions have said
        self.patient_since_s: dict[str, float] = {}  # since when requests wait though a load could begin
        self.odd: Counter[str] = Counter()  # by model, of those that may fare otherwise than the rest
        for request in requests:
            self.add(request)

    def add(self, request: Waiting) -> None:
        """One more waits."""
        self._all[request.request_id] = request
        self._numbers[request.request_id] = next(self._next)
        self._of.setdefault(request.model, {})[request.request_id] = request
        self.since.put(request.request_id, request.since_s)
        self.odd[request.model] += request.odd

    def remove(self, request_id: str) -> Waiting | None:
        """It waits no more; None if it did not."""
        request = self._all.pop(request_id, None)
        if request is None:
            return None
        del self._numbers[request_id]
        line = self._of[request.model]
        del line[request_id]
        if not line:
            del self._of[request.model]
        self.since.drop(request_id)
        self.again.drop(request_id)
        self.patient_since_s.pop(request_id, None)
        self.odd[request.model] -= request.odd
        return request

    def be_patient(self, moments: Iterable[tuple[str, float]]) -> None:
        """Since when requests wait though a load could begin, as a decision has said."""
        self.patient_since_s.update((number, at_s) for number, at_s in moments if number in self._all)

    def models(self) -> Collection[str]:
        """Those that somebody waits for."""
        return self._of.keys()

    def of(self, model: str) -> Collection[Waiting]:
        """Those that wait for one model, in order of service."""
        return self._of.get(model, NONE).values()

    def rank(self, request: Waiting) -> tuple[float, int]:
        """Its place in the order of service, among all that wait: the lowest is next."""
        return (request.since_s, self._numbers[request.request_id])

    def get(self, request_id: str) -> Waiting | None:
        """A request by its id, if it waits."""
        return self._all.get(request_id)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Waiting) and request.request_id in self._all
