"""The whole judgement: decide(view, now) -> actions, and when to look again."""

from dataclasses import dataclass

from policy.actions import Action
from policy.balance import even_out
from policy.clearing import clear
from policy.copies import bring_up
from policy.dispatch import dispatch
from policy.draft import Draft
from policy.draining import depart
from policy.evacuation import follow
from policy.keepalive import expire
from policy.knobs import Knobs
from policy.prewarm import prewarm
from policy.scaling import fill, spread
from policy.succession import succeed
from policy.view import Spot, View


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and the moment at which time alone would change the answer (None: never). `claims` are the
    versions for which room is being made, `again` the moments at which requests are to be looked at again, `patience`
    those since which requests wait though a load could begin; the books are to remember all three."""

    actions: tuple[Action, ...]
    look_again_s: float | None
    claims: tuple[Spot, ...] = ()
    again: tuple[tuple[str, float], ...] = ()
    patience: tuple[tuple[str, float], ...] = ()


def decide(view: View, now: float, knobs: Knobs) -> Decision:
    """Equal views give equal decisions. Times are readings of one clock, in seconds."""
    with Draft(view) as draft:
        steps = (follow, dispatch, succeed, fill, spread, prewarm, clear, even_out, depart, expire, bring_up)
        moments = [at_s for step in steps for at_s in step(draft, now, knobs)]
        return Decision(
            actions=tuple(draft.actions),
            look_again_s=min((at_s for at_s in moments if at_s > now), default=None),
            claims=tuple(draft.claims),
            again=tuple(draft.again.items()),
            patience=tuple(draft.patience.items()),
        )
