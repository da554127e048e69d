"""Idle replicas by the moment at which they came to rest: what keep-alive and eviction look at."""

from policy.spot import Spot
from policy.timeline import Timeline


class Rest:
    """Of replicas that may be unloaded, and that no adapter needs: each stands in one of the three."""

    def __init__(self) -> None:
        self.common: Timeline[Spot] = Timeline()  # since when, of those that the cluster's keep-alive counts for
        self.own: Timeline[Spot] = Timeline()  # until when, of models with a keep-alive of their own
        self.over: Timeline[Spot] = Timeline()  # since when, of those that nobody will ask for again
        self._of: dict[Spot, Timeline[Spot]] = {}

    def put(self, spot: Spot, since_s: float, keep_s: float | None, *, superseded: bool) -> None:
        """It rests since then. `keep_s` is its model's own keep-alive, if it has one."""
        timeline = self.over if superseded else self.common if keep_s is None else self.own
        if self._of.get(spot) is not timeline:
            self.drop(spot)
            self._of[spot] = timeline
        timeline.put(spot, since_s + keep_s if keep_s is not None and timeline is self.own else since_s)

    def drop(self, spot: Spot) -> None:
        """Somebody uses it, or it has gone."""
        if timeline := self._of.pop(spot, None):
            timeline.drop(spot)
