"""What it takes to have what runs on a worker elsewhere, in words."""

import math
from collections import Counter
from collections.abc import Sequence

from mesh.requests import MoveKind
from policy.knobs import Knobs
from policy.migration import Way
from policy.relocation import route
from policy.transfer import Transfer, crossover_tokens
from policy.victims import Victim
from policy.view import View

HOW = {MoveKind.KV: "copying KV", MoveKind.TOKENS: "computing tokens"}


def passage(view: View, way: Way, knobs: Knobs) -> str:
    """Who moves how, from which context on a copy is the quicker way, and what others pay."""
    moved = [_of(view, one, knobs) for one in way.choice.victims if one.goal]
    return "; ".join([*moved, f"others would pay {way.choice.cost_s:.2f} s"])


def _of(view: View, victim: Victim, knobs: Knobs) -> str:
    """Of one replica."""
    source, goal = view.replicas.seat(victim.source), victim.goal
    over = crossover_tokens(route(view, source, goal), view.rates, knobs) if source and goal else math.inf
    quicker = f"a copy is quicker beyond {over:.0f} tokens" if over < math.inf else "no copy is quicker"
    return f"of {victim.source.model} {_ways(victim.transfers)} ({quicker})"


def _ways(transfers: Sequence[Transfer]) -> str:
    counts, took_s = Counter(one.kind for one in transfers), sum(one.took_s for one in transfers)
    return " and ".join(f"{count} by {HOW[kind]}" for kind, count in sorted(counts.items())) + f", in {took_s:.2f} s"
