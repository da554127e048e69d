"""What a move that has ended teaches: how fast KV crosses, how fast it is computed, how long the answer stood still."""

from mesh.moves import Moved
from mesh.requests import MoveKind
from policy.knobs import Knobs
from policy.rates import Portion, Quantity, Rate, Rates
from policy.seat import Running
from policy.transfer import GAPS, Route, compute_work, copy_work


def move_ended(rates: Rates, route: Route, moved: Moved, one: Running, *, now: float, knobs: Knobs) -> None:
    """A request, as it was known where it came from, goes on at its target. A move that failed teaches nothing; nor
    does a time that nobody has taken."""
    if not moved.moved or moved.kind not in GAPS:
        return
    if moved.kind is MoveKind.KV:
        rates.saw(copy_work(route, moved.bytes_sent, knobs), moved.transfer_s)
    else:
        rates.saw(compute_work(route, max(0, moved.tokens - moved.tokens_there), knobs), moved.transfer_s)
    gap = Rate(GAPS[moved.kind], "", route.version.digest)
    rates.saw([Portion(gap, 1, moved.gap_s)], moved.gap_s)
    if gained := max(0, moved.tokens - one.prompt_tokens):
        pace = Rate(Quantity.TOKEN, "", route.version.digest)
        rates.saw([Portion(pace, gained, (now - one.placed_s) / gained)], now - one.placed_s)
