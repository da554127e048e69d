"""Stores by node and by what they hold: where a checkpoint may come from."""

from mesh.facts import Member
from policy.estimate import Source, nearest_source

NO_STORES: dict[str, Member] = {}


class Sources:
    """The stores that have told what they hold."""

    def __init__(self) -> None:
        self._stores: dict[str, Member] = {}
        self._near: dict[str, dict[str, Member]] = {}  # by node
        self._holders: dict[str, dict[str, Member]] = {}  # by digest
        self._asking: dict[str, Member] = {}  # an origin for what none holds

    def put(self, store_id: str, store: Member | None) -> set[str]:
        """What a store holds from now on; None, when it has gone. Returns the digests that it had not or has lost."""
        before = self._remove(store_id)
        after = {one.digest for one in store.store.checkpoints} if store and store.store else set[str]()
        if store and store.store:
            self._stores[store_id] = store
            self._near.setdefault(store.node, {})[store_id] = store
            for digest in after:
                self._holders.setdefault(digest, {})[store_id] = store
            if store.store.origins:
                self._asking[store_id] = store
        return before ^ after

    def nearest(self, digest: str, node: str) -> Source | None:
        """The store from which a worker of this node would load, if any has the checkpoint or can ask an origin."""
        stores = self._holders.get(digest, NO_STORES) | self._near.get(node, NO_STORES)
        if self._asking:
            last = max(self._asking)  # equal but for their names: the one that nearest_source prefers
            stores |= {last: self._asking[last]}
        return nearest_source(stores.values(), digest, node)

    def has(self, digest: str) -> bool:
        """Whether any store holds the checkpoint or can ask for it."""
        return bool(self._asking) or digest in self._holders

    def nodes(self, digest: str) -> list[str]:
        """Where it lies, by name."""
        return sorted({store.node for store in self._holders.get(digest, NO_STORES).values()})

    def _remove(self, store_id: str) -> set[str]:
        gone = self._stores.pop(store_id, None)
        if gone is None or gone.store is None:
            return set()
        self._asking.pop(store_id, None)
        _take(self._near, gone.node, store_id)
        digests = {one.digest for one in gone.store.checkpoints}
        for digest in digests:
            _take(self._holders, digest, store_id)
        return digests


def _take(table: dict[str, dict[str, Member]], key: str, store_id: str) -> None:
    del table[key][store_id]
    if not table[key]:
        del table[key]
