"""What loading a version takes, worker by worker: worked out once for each node, whose workers are nearly alike."""

from dataclasses import replace
from typing import Final, final

from mesh.facts import Member, ModelEntry
from policy.estimate import Source, haul, hauled_from
from policy.haul import Haul
from policy.knobs import Knobs
from policy.prices import Prices
from policy.size import has_base
from policy.view import View


@final
class Offer:
    """Where a version would come from, what would have to be brought, and how long that would take."""

    __slots__ = ("estimate_s", "load", "source")

    def __init__(self, source: Source, load: Haul, estimate_s: float) -> None:
        self.source: Final = source
        self.load: Final = load
        self.estimate_s: Final = estimate_s


class Offers:
    """Of one version, at one moment."""

    def __init__(self, view: View, entry: ModelEntry, knobs: Knobs) -> None:
        self._view, self._version, self._entry = view, entry.checkpoint, entry
        self._prices = Prices(view.rates, entry.checkpoint.architecture, knobs)
        self._of_nodes: dict[str, Offer | None] = {}

    def at(self, member: Member) -> Offer | None:
        """To a worker; None where no store has it. Only what its bus is busy with is the worker's own matter."""
        if self._version.base:
            return self._with_base(member)
        offer = self.within(member.node)
        if offer and offer.load.dram_bytes and self._view.loads.uses_bus(member):
            return self._priced(offer.source, offer.load.to(member.id))
        return offer

    def within(self, node: str) -> Offer | None:
        """To a worker of a node that has its bus for itself, of what needs no base: nowhere there is it sooner."""
        if node not in self._of_nodes:
            source = self._view.index.sources.nearest(self._version.digest, node)
            offer = self._priced(source, hauled_from(source, self._version, "", node)) if source else None
            self._of_nodes[node] = offer
        return self._of_nodes[node]

    def _with_base(self, member: Member) -> Offer | None:
        """Where an adapter's base would have to come too, from the store that has most of that."""
        version, sources = self._version, self._view.index.sources
        source = sources.nearest(version.digest, member.node)
        if source is None:
            return None
        brought = haul(version, source, member)
        if not has_base(self._view, self._entry, member):
            source = sources.nearest(version.base, member.node)
            if source is None:
                return None
            base = replace(version, digest=version.base, bytes=version.base_bytes)
            brought = brought.plus(haul(base, source, member))
        return self._priced(source, brought)

    def _priced(self, source: Source, load: Haul) -> Offer:
        return Offer(source, load, self._prices.mean_s(load, self._view.loads.beside(load)))
