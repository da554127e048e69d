"""Whether what one replica began another goes on with, bit for bit: as the facts have their numerics."""

from mesh.facts import ClusterFacts, Kind, ReplicaState
from mesh.requests import Placement
from mesh.state.mirror import Mirror

PATIENCE_S = 0.1  # for a replica that has just been loaded: its worker tells the scheduler and us at the same time


class Numerics:
    """The fingerprints of replicas."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def of(self, model: str, place: Placement) -> str:
        """Of the replica that has a place; "" when it promises nothing, or is not known."""
        return _fingerprint(self._mirror.facts, model, place) or ""

    async def soon_of(self, model: str, place: Placement) -> str:
        """The same of one that has just become known."""
        await self._mirror.until(lambda facts: _fingerprint(facts, model, place) is not None, PATIENCE_S)
        return self.of(model, place)


def are_exact(former: str, other: str) -> bool:
    """Whether two replicas of these fingerprints give the same bits. A level that has a fingerprint promises that
    also for what is computed anew from its tokens."""
    return bool(former) and former == other


def _fingerprint(facts: ClusterFacts, model: str, place: Placement) -> str | None:
    """None: not known, yet. A worker that lost its lease and has joined again has another fence, and the same replicas;
    one that was started again has another address."""
    member = next((one for one in facts.of_kind(Kind.WORKER) if one.address == place.address), None)
    replica = member.worker.replica(model, place.digest) if member and member.worker else None
    return replica.fingerprint if replica and replica.state is not ReplicaState.LOADING else None
