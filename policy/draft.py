"""What a decision has come to so far, so that its next step sees it."""

from collections.abc import Callable, Iterable
from functools import partial
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
        self._back: list[Callable[[], object]] = []
        self._marks = Marks()

    def __enter__(self) -> "Draft":
        self._marks, self.view.index.marks = self.view.index.marks, self._marks
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for undo in reversed(self._back):
            undo()
        self.view.index.marks = self._marks

    def take(self, actions: Iterable[Action]) -> None:
        """What is to be done."""
        index, loads = self.view.index, self.view.loads
        for action in actions:
            self.actions.append(action)
            match action:
                case Place(number, spot):
                    self.answered.add(number)
                    self._do(partial(index.place, spot), partial(index.place, spot, -1))
                case Move(number, spot):
                    moving, source = self.view.moving, self.view.where[number]
                    self._do(partial(index.place, spot), partial(index.place, spot, -1))
                    self._do(partial(moving.begin, number, source, spot), partial(moving.end, number))
                case MakeWay(plan):
                    self._do(partial(self.view.moving.add, plan), partial(self.view.moving.drop, plan))
                case Prefetch(store_id, digest, tier):
                    copy, copying = Copy(store_id, digest, tier), self.view.copying
                    self._do(partial(copying.under_way.add, copy), partial(copying.under_way.discard, copy))
                case Yield(spots, to):
                    self._do(partial(self.view.yielding.add, spots, to), partial(self.view.yielding.drop, spots))
                case Refuse(number):
                    self.answered.add(number)
                case Load(spot):
                    self._do(partial(index.load, spot), partial(index.loaded, spot))
                    if action.haul:  # others come after it through its disk
                        self._do(partial(loads.expect, spot, action.haul), partial(loads.end, spot))
                case Unload(spot):
                    self._do(partial(index.unload, spot), partial(index.unloaded, spot))

    def claim(self, spots: Iterable[Spot]) -> None:
        """Room that is being made is for these versions."""
        index = self.view.index
        for spot in spots:
            self.claims.append(spot)
            self._do(partial(index.claim, spot), partial(index.unclaim, spot))

    def _do(self, do: Callable[[], object], undo: Callable[[], object]) -> None:
        do()
        self._back.append(undo)
