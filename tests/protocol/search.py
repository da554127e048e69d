"""Breadth first through every state of the model, and what is asked of each."""

from array import array
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.protocol.circles import circle
from tests.protocol.gateway import Violation
from tests.protocol.steps import echoes, faults, idle, owners, quiet, start
from tests.protocol.world import Scope, World


class Searched(NamedTuple):
    """What a search has found. `trace` leads to what is wrong."""

    states: int
    wrong: str = ""
    trace: tuple[str, ...] = ()


def search(scope: Scope) -> Searched:
    """Looks for an answer that is not whole, two owners, a state where nothing more happens before everybody is idle,
    and a quiet network in which it never ends."""
    return Search(scope).run()


class Search:
    """One. States are numbered as they are met, and each remembers how it was come by."""

    def __init__(self, scope: Scope) -> None:
        first = start(scope)
        self._scope, self._todo = scope, deque([first])
        self._numbers, self._came = {first: 0}, [(0, "")]
        self._befores, self._afters = array("I"), array("I")  # of each quiet step

    def run(self) -> Searched:
        """To the end, or to the first thing that is wrong."""
        while self._todo:
            world = self._todo.popleft()
            here = self._numbers[world]
            try:
                wrong = self._visit(world, here)
            except Violation as violation:
                wrong = str(violation)
            if wrong:
                return Searched(len(self._came), wrong, tuple(self._way(here)))
        if (lasting := circle(len(self._came), self._befores, self._afters)) is None:
            return Searched(len(self._came))
        return Searched(len(self._came), "for ever", tuple(self._way(lasting)))

    def _visit(self, world: World, here: int) -> str:
        """Notes what can follow a state. Says what is wrong with it."""
        ends = True
        for what, after in quiet(world, self._scope):
            ends = False
            self._befores.append(here)
            self._afters.append(self._note(here, what, after))
        for what, after in (*faults(world, self._scope), *echoes(world, self._scope)):
            self._note(here, what, after)
        if owners(world) > 1:
            return f"two owners: {world}"
        return f"stuck: {world}" if ends and not idle(world) else ""

    def _note(self, here: int, what: str, after: World) -> int:
        there = self._numbers.setdefault(after, len(self._came))
        if there == len(self._came):
            self._came.append((here, what))
            self._todo.append(after)
        return there

    def _way(self, end: int) -> Iterator[str]:
        """What leads to a state, in order."""
        before, what = self._came[end]
        if end:
            yield from self._way(before)
            yield what
