"""How long places are held: what the end of one teaches, and what that says to those who wait for one."""

from policy.knobs import Knobs
from policy.rates import Portion, Quantity, Rate, Rates
from policy.seat import Running, Seat
from policy.spot import Spot

LEAST_SHARE = 0.25  # of an average answer: what one is thought to take yet that has taken longer than that


def held_mean_s(rates: Rates, model: str, knobs: Knobs) -> float:
    """How long a place is held, on average."""
    return rates.mean_s(Rate(Quantity.HELD, "", model), rates.mean_s(Rate(Quantity.HELD, ""), knobs.held_s))


def left_s(rates: Rates, model: str, one: Running, now: float, knobs: Knobs) -> float:
    """Until a request is thought to end."""
    mean_s = held_mean_s(rates, model, knobs)
    return max(LEAST_SHARE * mean_s, mean_s - (now - one.placed_s))


def slot_wait(rates: Rates, model: str, ahead: int, slots: int, knobs: Knobs) -> Portion:
    """Until `ahead` requests, and one more, have left so many slots, each after as long as others were there. Nothing
    is known of a model that has never answered but what is of all models."""
    any_model_s = rates.mean_s(Rate(Quantity.HELD, ""), knobs.held_s)
    return Portion(Rate(Quantity.HELD, "", model), (ahead + 1) / max(1, slots), any_model_s)


def place_ended(rates: Rates, spot: Spot, seat: Seat | None, held_s: float) -> None:
    """A request has given its place back. Its replica, if it is still there, says what prompts cost."""
    for model in (spot.model, ""):
        rates.saw([Portion(Rate(Quantity.HELD, "", model), 1, held_s)], held_s)
    if seat and (token_s := seat.replica.prefill_token_s):
        rates.saw([Portion(Rate(Quantity.PREFILL, seat.member.node, spot.digest), 1, token_s)], token_s)
