"""Stores by node and by what they hold: where a checkpoint may come from."""

from collections.abc import Collection, Sequence

from mesh.facts import Member
from policy.estimate import Source, source

NONE: dict[str, Source] = {}
NO_STORES: dict[str, Member] = {}


class Sources:
    """The stores that have told what they hold."""

    def __init__(self) -> None:
        self._near: dict[str, dict[str, Member]] = {}  # by node
        self._holders: dict[str, dict[str, Source]] = {}  # by digest, then store
        self._held: dict[str, tuple[str, frozenset[str]]] = {}  # by store: its node, and the digests that it holds
        self._bare: dict[str, Source] = {}  # by store: of what it has nothing of
        self._nodes: dict[str, tuple[str, ...]] = {}  # by digest, until a store has it or loses it
        self._asking: dict[str, Member] = {}  # an origin, for what none holds

    def put(self, store_id: str, store: Member | None) -> frozenset[str]:
        """What a store holds from now on; None, when it has gone. Returns the digests that it had not or has lost."""
        before = self._remove(store_id)
        if store is None or store.store is None:
            return before
        self._near.setdefault(store.node, {})[store_id] = store
        self._bare[store_id] = source(store, None)
        if store.store.origins:
            self._asking[store_id] = store
        for held in store.store.checkpoints:
            self._holders.setdefault(held.digest, {})[store_id] = source(store, held)
            self._nodes.pop(held.digest, None)
        after = frozenset(held.digest for held in store.store.checkpoints)
        self._held[store_id] = (store.node, after)
        return before ^ after

    def nearest(self, digest: str, node: str) -> Source | None:
        """The store to load from: the same node's even when it has nothing yet, for it fetches; else the one with
        most. None when no store has heard of the checkpoint, and none can ask an origin."""
        holders = self._holders.get(digest, NONE)
        if not holders and not self._asking:
            return None
        if near := self._near.get(node):
            here = [holders.get(name) or self._bare[name] for name in near]
            return here[0] if len(here) == 1 else max(here, key=_nearness)
        asking = [self._bare[name] for name in self._asking if name not in holders]
        return max((*holders.values(), *asking), key=_nearness)

    def has(self, digest: str) -> bool:
        """Whether any store holds the checkpoint or can ask for it."""
        return bool(self._asking) or digest in self._holders

    def stores(self) -> Collection[Member]:
        """All of them."""
        return [store for stores in self._near.values() for store in stores.values()]

    def holders(self, digest: str) -> Collection[Source]:
        """The stores that have something of a checkpoint, and how much."""
        return self._holders.get(digest, NONE).values()

    def at(self, node: str) -> Collection[Member]:
        """The stores of a node."""
        return self._near.get(node, NO_STORES).values()

    def nodes(self, digest: str) -> Sequence[str]:
        """Where it lies, by name."""
        found = self._nodes.get(digest)
        if found is None:
            found = self._nodes[digest] = tuple(sorted({held.store.node for held in self.holders(digest)}))
        return found

    def _remove(self, store_id: str) -> frozenset[str]:
        if store_id not in self._held:
            return frozenset()
        node, digests = self._held.pop(store_id)
        self._asking.pop(store_id, None)
        del self._bare[store_id]
        del self._near[node][store_id]
        if not self._near[node]:
            del self._near[node]
        for digest in digests:
            self._nodes.pop(digest, None)
            del self._holders[digest][store_id]
            if not self._holders[digest]:
                del self._holders[digest]
        return digests


def _nearness(one: Source) -> tuple[int, int, str]:
    return one.dram_bytes, one.disk_bytes, one.store.id
