"""The start that takes least, what nobody uses counting as free memory."""

from collections.abc import Collection

from sim.baselines.desk import Desk, start_at


def start_nearest(desk: Desk, model: str, excluded: Collection[str] = frozenset()) -> bool:
    """Loads a model where that takes least, for which idle replicas make way, the longest unused first. False: nothing
    can be done now."""
    able = [one for one in desk.elsewhere(model) if one.id not in excluded and desk.can_start(one, model)]
    best = min(able, key=lambda one: (desk.load_s(one, model), desk.trouble(one, model), one.id), default=None)
    return best is not None and start_at(desk, best, model)
