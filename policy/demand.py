"""What has been asked of each model, and which are expected to be asked soon."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

from policy.forecast import window
from policy.history import EDGES_S, History, bin_of
from policy.timeline import Timeline

MOST = 32  # models that are looked at again because there is more room
NOBODY: frozenset[str] = frozenset()


class Demand:
    """Kept by the books. A model is expected while its window is open. It is looked at when that opens and then at each
    further edge of its histogram: between two of them the forecast is taken to stay as it is. Nobody has to look
    for the sake of one that is there."""

    def __init__(self) -> None:
        self.histories: dict[str, History] = {}
        self.due: frozenset[str] = NOBODY  # models to look at now
        self.closes_s: dict[str, float] = {}  # by model, of the windows that are open, those open longest first
        self.changed: set[str] = set()  # models asked or forgotten since somebody saved what is known of them
        self._looks: Timeline[str] = Timeline()
        self._idle_looks: Timeline[str] = Timeline()  # at models that are there

    def arrived(self, model: str, now: float) -> None:
        """A request for a model has come."""
        self.met(model)
        self.changed.add(model)
        history = self.histories.get(model)
        if history is None:
            self.histories[model] = History.begun(now)
            return
        history.asked(now)
        self._expect(model, history)

    def recall(self, model: str, last_s: float, weights: Sequence[float]) -> None:
        """What an earlier leader knew of a model: when it was asked last, and its histogram then."""
        history = History.begun(last_s)
        history.weights = list(weights)
        self.histories[model] = history
        self._expect(model, history)

    def forget(self, model: str) -> None:
        """The catalogue has it no more."""
        if self.histories.pop(model, None):
            self.changed.add(model)
            self.met(model)

    def met(self, model: str) -> None:
        """Somebody has come, or a replica does: nothing more is expected."""
        self._looks.drop(model)
        self._idle_looks.drop(model)
        self.closes_s.pop(model, None)

    def note(self, model: str, *, is_there: bool) -> None:
        """Whether a model has a replica, or gets one."""
        before, after = (self._looks, self._idle_looks) if is_there else (self._idle_looks, self._looks)
        if (at_s := before.at_s.get(model)) is not None:
            before.drop(model)
            after.put(model, at_s)

    def advance(self, now: float, *, roomier: bool, roomed: AbstractSet[str] = NOBODY) -> None:
        """It is `now`: opens and closes windows, and notes which models are to be looked at; those for which room has
        been made are among them, and where there is more room than there was, those expected longest."""
        due, idle = self._looks.look(now).due, self._idle_looks.look(now).due
        for model in sorted((*due, *idle), key=self._moment) if idle else due:
            self._turn(model, now)
        hopeful = islice(self.closes_s, MOST) if roomier else ()
        self.due = frozenset(model for model in (*due, *roomed, *hopeful) if model in self.closes_s)

    def next_s(self, now: float) -> float | None:
        """When the next model is to be looked at."""
        return self._looks.look(now).next_s

    def _expect(self, model: str, history: History) -> None:
        if found := window(history):
            self._looks.put(model, history.last_s + found.opens_s)

    def _moment(self, model: str) -> tuple[float, str]:
        """When to look at it, among others."""
        at_s = self._looks.at_s.get(model)
        return self._idle_looks.at_s[model] if at_s is None else at_s, model

    def _turn(self, model: str, now: float) -> None:
        history = self.histories[model]
        found = window(history)
        closes_s = history.last_s + (found.closes_s if found else 0.0)
        if closes_s <= now:
            self.met(model)
            return
        self.closes_s.setdefault(model, closes_s)
        here = bin_of(now - history.last_s)
        further = (history.last_s + edge for edge in EDGES_S[here : here + 3])
        looks = self._idle_looks if model in self._idle_looks.at_s else self._looks
        looks.put(model, min([closes_s, *(at_s for at_s in further if at_s > now)]))
