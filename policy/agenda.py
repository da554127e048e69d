"""Which models a decision looks at, in order of service: those that may fare otherwise than when last looked at."""

from functools import partial

from policy.backlog import Kind
from policy.knobs import Knobs
from policy.order import Flow, Order
from policy.slots import is_ready
from policy.view import View, Waiting


class Line:
    """The requests of one model. Once one has found nothing, others like it will find nothing either."""

    def __init__(self, view: View, model: str, due: frozenset[str], kind: Kind | None) -> None:
        self.model = model
        self.kind = kind  # in the backlog, of a model that is looked at only because there is more room somewhere
        self.left = len(view.queues.of(model))
        self.apart = _count_apart(view, model, due)  # of these, those to be looked at one by one
        self.held = 0
        self.blocked = False
        self.reached = False


class Agenda:
    """The models that were touched, and of each line in the backlog that may find room the next, once the one before it
    has been looked at: for there will be none that is not in vain when the room is taken."""

    def __init__(self, view: View, due: frozenset[str], now: float, knobs: Knobs) -> None:
        self.order = Order(view.shares, view.queues.rank, now, knobs, partial(is_ready, view))
        self._view, self._due = view, due
        self._lines: dict[str, Line] = {}
        self._reached: dict[Kind, int] = {}
        for model in _touched(view, due):
            self._add(model, None)
        for kind in view.backlog.kinds() if view.roomier else ():
            self._follow(kind)

    def next(self) -> tuple[Line, Flow] | None:
        """Whose first request is to be looked at now; None when all have been."""
        while flow := self.order.next():
            line = self._lines[flow.model]
            if line.kind and self._fits(line.kind) and not line.reached:
                line.reached = True
                self._follow(line.kind)
            if not line.kind or self._fits(line.kind):
                return line, flow
        return None

    def _follow(self, kind: Kind) -> None:
        """The next of a line, if it may find room."""
        line, place = self._view.backlog.line(kind), self._reached.get(kind, 0)
        while place < len(line) and line[place].model in self._lines:
            place += 1
        self._reached[kind] = place + 1
        if place < len(line) and self._fits(kind):
            self._add(line[place].model, kind)

    def _add(self, model: str, kind: Kind | None) -> None:
        self._lines[model] = Line(self._view, model, self._due, kind)
        self.order.add(self._view.queues.of(model))

    def _fits(self, kind: Kind) -> bool:
        """Whether one of the workers where there is more room has as much as these models take at least."""
        rooms = (self._view.index.account(worker_id).room_bytes for worker_id in self._view.roomier or ())
        return kind.need_bytes <= max(rooms, default=-1)


def is_apart(view: View, request: Waiting, due: frozenset[str]) -> bool:
    """Whether a request may fare otherwise than others of its model, or its time has come."""
    return request.odd or request.request_id in due or request.request_id in view.fresh


def _count_apart(view: View, model: str, due: frozenset[str]) -> int:
    if not due and not view.fresh:
        return view.queues.odd[model]
    return sum(is_apart(view, request, due) for request in view.queues.of(model))


def _touched(view: View, due: frozenset[str]) -> list[str]:
    """Models that somebody waits for, and of which something has changed, or somebody's time has come."""
    if view.touched is None:
        return list(view.queues.models())
    models = {request.model for number in due if (request := view.queues.get(number))}
    return [model for model in view.touched | models if view.queues.of(model)]
