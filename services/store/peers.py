"""The cluster's other stores: which have what, as far as their facts say."""

from collections.abc import Sequence

from mesh.clients.store import StoreClient
from mesh.facts import CheckpointFacts, Kind, Member
from mesh.state.mirror import Mirror
from services.store.suppliers import PeerSource, Threads


class Peers:
    """Everybody but the store `own_id`."""

    def __init__(self, mirror: Mirror, own_id: str, client: StoreClient) -> None:
        self._mirror, self._own_id, self.client = mirror, own_id, client

    def knowing(self, digest: str) -> list[Member]:
        """Stores that have its manifest and small files; those with most of its bytes first."""
        facts = {member.id: (member, held) for member, held in self._listed(digest)}
        return [member for member, held in sorted(facts.values(), key=lambda pair: (-_bytes(pair[1]), pair[0].id))]

    def sources(self, digest: str, threads: Threads) -> Sequence[PeerSource]:
        """Stores that have any of its units, on disk or in memory."""
        return [
            PeerSource(member, digest, self.client, threads) for member, held in self._listed(digest) if _bytes(held)
        ]

    def keep(self, digest: str) -> bool:
        """Whether another store will keep it, so that this one need not.

        Of all stores with the whole checkpoint on disk, the one with the lowest name never evicts it on its own:
        so two that look at the same moment never both rely on each other.
        """
        return any(member.id < self._own_id and held.disk_bytes >= held.bytes for member, held in self._listed(digest))

    def _listed(self, digest: str) -> list[tuple[Member, CheckpointFacts]]:
        return [
            (member, held)
            for member in self._mirror.facts.of_kind(Kind.STORE)
            if member.id != self._own_id and member.store
            for held in member.store.checkpoints
            if held.digest == digest
        ]


def _bytes(held: CheckpointFacts) -> int:
    return max(held.disk_bytes, held.dram_bytes)
