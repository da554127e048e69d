"""Loads that were decided on and wait for their turn, as the scheduler has them wait."""

from policy.actions import Load
from policy.books import Books
from policy.knobs import Knobs
from policy.view import Spot

SOON_S = 0.02  # at least, until somebody looks again


class Turns:
    """Of one simulation."""

    def __init__(self, books: Books, knobs: Knobs) -> None:
        self._books, self._knobs = books, knobs
        self.waiting: dict[Spot, Load] = {}

    def begin(self, now: float) -> tuple[list[Load], float | None]:
        """Those that begin now, and when to look again."""
        loads, rates, knobs = self._books.loads, self._books.rates, self._knobs
        begun = list[Load]()
        for spot in [spot for spot in self.waiting if loads.turn_s(spot, now) is None]:
            loads.take_turn(spot, now, rates, knobs)
            begun.append(self.waiting.pop(spot))
        rests_s = [loads.rest_before_s(spot, rates, knobs) for spot in self.waiting]
        return begun, now + max(SOON_S, min(rests_s)) if rests_s else None
