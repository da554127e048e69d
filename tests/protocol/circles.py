"""Whether steps can go round for ever."""

from array import array
from collections import deque


def circle(states: int, befores: "array[int]", afters: "array[int]") -> int | None:
    """A state on or behind a circle of steps, if there is one. Step i leads from befores[i], sorted, to afters[i].
    Kahn's algorithm: a state is taken once all that lead to it are, and what is left is on a circle, or behind one."""
    incoming, first = array("I", bytes(4 * states)), array("I", bytes(4 * (states + 1)))
    for before, after in zip(befores, afters, strict=True):
        incoming[after] += 1
        first[before + 1] += 1
    for state in range(states):
        first[state + 1] += first[state]
    ready, left = deque(state for state in range(states) if not incoming[state]), states
    while ready:
        state, left = ready.popleft(), left - 1
        for after in afters[first[state] : first[state + 1]]:
            incoming[after] -= 1
            if not incoming[after]:
                ready.append(after)
    return next(state for state in range(states) if incoming[state]) if left else None
