"""What a decision has come to so far, so that its next step sees it."""

from collections.abc import Iterable
from types import TracebackType

from policy.actions import Action, Load, MakeWay, Move, Place, Prefetch, Refuse, Unload, Yield
from policy.copying import Copy
from policy.index import Marks
from policy.spot import Spot
from policy.view import View


class Draft:
    """Writes each action into the view's index, and takes all of them back in the end: then the view is as before."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.actions: list[Action] = []
        self.claims: list[Spot] = []
        self.again: dict[str, float] = {}  # when requests are to be looked at again
        self.patience: dict[str, float] = {}  # since when requests wait though a load could begin
        self.answered: set[str] = set()  # requests with a place or a refusal
        self._back: list[Action | Spot] = []  # what is written, claims among it, in order
        self._marks = Marks()

    def __enter__(self) -> "Draft":
        self._marks, self.view.index.marks = self.view.index.marks, self._marks
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in reversed(self._back):
            if isinstance(one, Spot):
                self.view.index.unclaim(one)
            else:
                self._take_back(one)
        self.view.index.marks = self._marks

    def take(self, actions: Iterable[Action]) -> None:
        """What is to be done."""
        for action in actions:
            self.actions.append(action)
            self._write(action)
            self._back.append(action)

    def claim(self, spots: Iterable[Spot]) -> None:
        """Room that is being made is for these versions."""
        for spot in spots:
            self.claims.append(spot)
            self.view.index.claim(spot)
            self._back.append(spot)

    def waiting(self, model: str) -> int:
        """Requests of a model that have neither a place nor a refusal yet."""
        return sum([request.request_id not in self.answered for request in self.view.queues.of(model)])

    def _write(self, action: Action) -> None:
        view, index = self.view, self.view.index
        if isinstance(action, Load):
            index.load(action.spot)
            if action.haul:  # others come after it through its disk
                view.loads.expect(action.spot, action.haul)
        elif isinstance(action, Place):
            self.answered.add(action.request_id)
            index.place(action.spot)
        elif isinstance(action, Unload):
            index.unload(action.spot)
        elif isinstance(action, Refuse):
            self.answered.add(action.request_id)
        elif isinstance(action, Move):
            view.moving.begin(action.request_id, view.where[action.request_id], action.to)
            index.place(action.to)
        elif isinstance(action, Prefetch):
            view.copying.under_way.add(Copy(action.store_id, action.digest, action.tier))
        elif isinstance(action, Yield):
            view.yielding.add(action.spots, action.to)
        else:
            view.moving.add(action.evacuation)

    def _take_back(self, action: Action) -> None:
        view, index = self.view, self.view.index
        if isinstance(action, Load):
            index.loaded(action.spot)
            if action.haul:
                view.loads.end(action.spot)
        elif isinstance(action, Place):
            index.place(action.spot, -1)
        elif isinstance(action, Unload):
            index.unloaded(action.spot)
        elif isinstance(action, Move):
            index.place(action.to, -1)
            view.moving.end(action.request_id)
        elif isinstance(action, Prefetch):
            view.copying.under_way.discard(Copy(action.store_id, action.digest, action.tier))
        elif isinstance(action, Yield):
            view.yielding.drop(action.spots)
        elif isinstance(action, MakeWay):
            view.moving.drop(action.evacuation)
