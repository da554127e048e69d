"""Idle replicas by the moment at which they came to rest: what keep-alive and eviction look at."""

from policy.spot import Spot
from policy.timeline import Timeline


class Rest:
    """Of replicas that may be unloaded, and that no adapter needs: each stands in one of the three."""

    def __init__(self) -> None:
        self.common: Timeline[Spot] = Timeline()  # since when, of those that the cluster's keep-alive counts for
        self.own: Timeline[Spot] = Timeline()  # until when, of models with a keep-alive of their own
        self.over: Timeline[Spot] = Timeline()  # since when, of those that nobody will ask for again

    def put(self, spot: Spot, since_s: float, keep_s: float | None, *, superseded: bool) -> None:
        """It rests since then. `keep_s` is its model's own keep-alive, if it has one."""
        self.drop(spot)
        if superseded:
            self.over.put(spot, since_s)
        elif keep_s is None:
            self.common.put(spot, since_s)
        else:
            self.own.put(spot, since_s + keep_s)

    def drop(self, spot: Spot) -> None:
        """Somebody uses it, or it has gone."""
        for timeline in (self.common, self.own, self.over):
            timeline.drop(spot)
