"""Which workers may get a replica of a version at all, whatever memory they have left."""

from typing import Final, final

from mesh.facts import ModelEntry
from policy.size import full_bytes
from policy.view import View


@final
class Ability:
    """Of one version, at one moment: a worker is trusted, stays, is large enough, and has no replica of it yet."""

    __slots__ = ("_entry", "_excluded", "_leaving", "_now", "_taken", "_view")

    def __init__(self, view: View, entry: ModelEntry, now: float, excluded: frozenset[int]) -> None:
        digest, name, replicas = entry.checkpoint.digest, entry.name, view.replicas
        self._view: Final = view
        self._entry: Final = entry
        self._now: Final = now
        self._excluded: Final = excluded
        self._leaving: Final = view.index.draining()
        self._taken: Final = {seat.spot.worker_id for seat in replicas.seats(name) if seat.spot.digest == digest}
        self._taken.update([spot.worker_id for spot in replicas.loads_of(name) if spot.digest == digest])

    def has(self, worker_id: str) -> bool:
        """Whether a worker may get one."""
        member = self._view.index.workers[worker_id]
        if member.worker is None or worker_id in self._taken or worker_id in self._leaving:
            return False
        if member.fence in self._excluded or self._view.distrusts(worker_id, self._now):
            return False
        return full_bytes(self._entry, member.worker) <= member.worker.memory_bytes
