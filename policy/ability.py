"""Which workers may get a replica of a version at all, whatever memory they have left."""

from typing import Final, final

from mesh.facts import ModelEntry, RunnerKind, WorkerFacts
from policy.size import has_base
from policy.view import View


@final
class Ability:
    """Of one version, at one moment: a worker is trusted, stays, is large enough, and has no replica of it yet."""

    __slots__ = ("_entry", "_excluded", "_has_pool", "_leaving", "_now", "_taken", "_view", "_weights_bytes")

    def __init__(self, view: View, entry: ModelEntry, now: float, excluded: frozenset[int]) -> None:
        version, name, replicas = entry.checkpoint, entry.name, view.replicas
        digest = version.digest
        self._view: Final = view
        self._entry: Final = entry
        self._weights_bytes: Final = version.bytes + version.base_bytes
        self._has_pool: Final = version.runner is not RunnerKind.ENCODER
        self._now: Final = now
        self._excluded: Final = excluded
        self._leaving: Final = view.index.draining()
        self._taken: Final = {seat.spot.worker_id for seat in replicas.seats(name) if seat.spot.digest == digest}
        self._taken.update([spot.worker_id for spot in replicas.loads_of(name) if spot.digest == digest])

    def has(self, worker_id: str) -> bool:
        """Whether a worker may get one."""
        if worker_id in self._taken or worker_id in self._leaving:
            return False
        member = self._view.index.workers[worker_id]
        worker = member.worker
        if worker is None or (self._excluded and member.fence in self._excluded):
            return False
        if self._view.distrusted_until_s and self._view.distrusts(worker_id, self._now):
            return False
        return self._full_bytes(worker) <= worker.memory_bytes

    def need_bytes(self, worker_id: str) -> int:
        """Memory that a replica takes on a worker that may get one; of an adapter nothing but its own beside its
        base."""
        member, version = self._view.index.workers[worker_id], self._entry.checkpoint
        if version.base and has_base(self._view, self._entry, member):
            return version.bytes
        return self._full_bytes(member.worker) if member.worker else 0

    def _full_bytes(self, worker: WorkerFacts) -> int:
        """`size.full_bytes`, of which what is the version's is worked out once for all workers."""
        return self._weights_bytes + worker.kv_bytes if self._has_pool else self._weights_bytes
