"""Finding checkpoints in the cluster's stores, and having them imported."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mesh.clients.store import StoreClient
from mesh.errors import InvalidRequest, NotFound, Unreachable, Unsuitable
from mesh.facts import CheckpointSummary, Kind, Member
from mesh.requests import ImportProgress
from mesh.state.mirror import Mirror

SEEN_S = 5.0


class Checkpoints:
    """The stores, as the catalogue needs them."""

    def __init__(self, stores: StoreClient, mirror: Mirror) -> None:
        self._stores, self._mirror = stores, mirror

    async def find_or_import(
        self, digest: str, source: str
    ) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Progress of the import, if there is one, then the checkpoint; Unsuitable when no engine can run it."""
        if digest:
            yield await self.find(digest)
            return
        async with aclosing(self.import_from(source)) as events:
            async for event in events:
                yield runnable(event) if isinstance(event, CheckpointSummary) else event

    async def find(self, digest: str) -> CheckpointSummary:
        """A checkpoint that some store holds; NotFound when none does."""
        holders = [m for m in self._all() if m.store and m.store.tier_of(digest)]
        if not holders:
            raise NotFound(
                f"no store holds a checkpoint {digest!r}; Import its source first",
                reason="UNKNOWN_CHECKPOINT",
                metadata={"checkpoint": digest},
            )
        return runnable((await self._stores.stat(holders[0].address, digest)).summary)

    async def import_from(self, source: str) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Has the first store import a source; returns when the facts show the checkpoint."""
        if not source:
            raise InvalidRequest.field(
                "source", "must be the absolute path or the address of a Hugging Face checkpoint"
            )
        store = self._all()[0]
        async with aclosing(self._stores.import_checkpoint(store.address, source)) as events:
            async for event in events:
                if isinstance(event, CheckpointSummary):
                    await self._shown(event.digest)
                yield event

    async def _shown(self, digest: str) -> None:
        """Waits until the store's facts have it: a request that follows must find it."""
        await self._mirror.until(
            lambda facts: any(m.store and m.store.tier_of(digest) for m in facts.of_kind(Kind.STORE)), SEEN_S
        )

    def _all(self) -> list[Member]:
        stores = sorted(self._mirror.facts.of_kind(Kind.STORE), key=lambda member: member.id)
        if not stores:
            raise Unreachable("no store is running; start one", reason="NO_STORE", retry_after_s=1.0)
        return stores


def runnable(summary: CheckpointSummary) -> CheckpointSummary:
    """The checkpoint itself, or Unsuitable when the engine cannot run its architecture."""
    if not summary.kv_bytes_per_token:
        raise Unsuitable(
            f"{summary.architecture} cannot be served yet: its layers keep more than keys and values",
            reason="UNSUPPORTED_ARCHITECTURE",
            metadata={"architecture": summary.architecture, "checkpoint": summary.digest},
        )
    return summary
