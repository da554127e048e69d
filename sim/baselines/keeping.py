"""Replicas that go when nobody has used them for as long as they are kept."""

from collections.abc import Callable

from policy.actions import UnloadReason
from sim.baselines.desk import Desk
from sim.policy import Resident


def expire(desk: Desk, now: float, keep_s: Callable[[Resident], float]) -> float | None:
    """Unloads those whose time is over. The moment at which the next one's is; None if none is unused."""
    ends = [
        ((one.idle_since_s or 0.0) + keep_s(one), one) for worker in desk.workers.values() for one in desk.idle(worker)
    ]
    desk.unload((one for at_s, one in ends if at_s <= now), UnloadReason.IDLE)
    return min((at_s for at_s, _ in ends if at_s > now), default=None)
