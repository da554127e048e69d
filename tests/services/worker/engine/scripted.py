"""Drafts by a script that knows the answers, so that every way in which a guess can be right or wrong is met."""

import random
from collections.abc import Iterable, Sequence

from services.worker.engine.draft import Drafter
from services.worker.engine.lookup import Lookup
from services.worker.engine.packed_replica import PackedReplica
from tests.services.worker.engine.tiny import VOCABULARY


class Script(Lookup):
    """Guesses some of the truth, and then perhaps nonsense: both by a die that the place throws."""

    def __init__(self, truths: Iterable[Sequence[int]]) -> None:
        super().__init__()
        self._truths = [tuple(truth) for truth in truths]

    def guess(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        dice = random.Random(len(tokens))
        truth = next(one for one in self._truths if one[: len(tokens)] == tuple(tokens))
        right = truth[len(tokens) :][: dice.randint(0, most)]
        return (*right, *(dice.randrange(VOCABULARY) for _ in range(dice.randint(0, most - len(right)))))


def scripted(truths: Iterable[Sequence[int]], on: PackedReplica) -> PackedReplica:
    """The replica, whose guesses come from a script."""
    told = list(truths)
    on._drafter = Drafter(on.limits, on.numerics, on._cache, lambda: Script(told))
    return on
