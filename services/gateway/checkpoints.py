"""Finding checkpoints in the cluster's stores, and having them imported."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from mesh.checkpoint.adapter import ADAPTER_CONFIG
from mesh.checkpoint.errors import CheckpointError
from mesh.checkpoint.lora import check_applied
from mesh.clients.store import StoreClient
from mesh.errors import InvalidRequest, NotFound, Unreachable, Unsuitable
from mesh.facts import CheckpointSummary, Kind, Member
from mesh.requests import ImportProgress
from mesh.state.mirror import Mirror

SEEN_S = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint, where it was imported from, and a store that knows it."""

    summary: CheckpointSummary
    source: str
    store_id: str


class Checkpoints:
    """The stores, as the catalogue needs them."""

    def __init__(self, stores: StoreClient, mirror: Mirror) -> None:
        self._stores, self._mirror = stores, mirror

    async def find_or_import(
        self, digest: str, source: str, base: str = ""
    ) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Progress of the import, if there is one, then the checkpoint; Unsuitable when no engine can run it."""
        if digest:
            yield (await self.find(digest)).summary
            return
        async with aclosing(self.import_from(source, base)) as events:
            async for event in events:
                yield event if isinstance(event, ImportProgress) else (await self.find(event.digest)).summary

    async def find(self, digest: str) -> Found:
        """A checkpoint that the engine can run, alone or beside its base. Raises what `known` does, and Unsuitable."""
        found = await self.known(digest)
        if not found.summary.base:
            runnable(found.summary)
            return found
        base = runnable((await self.known(found.summary.base)).summary)
        await self._check_adapter(found)
        summary = replace(found.summary, base_bytes=base.bytes, kv_bytes_per_token=base.kv_bytes_per_token)
        return replace(found, summary=summary)

    async def _check_adapter(self, found: Found) -> None:
        """Raises Unsuitable for an adapter that a worker would refuse, before a model is made of it."""
        digest, address = found.summary.digest, self._mirror.facts.members[f"{Kind.STORE}/{found.store_id}"].address
        stat = await self._stores.stat(address, digest)
        config = await self._stores.read_file(address, digest, ADAPTER_CONFIG)
        try:
            check_applied(config, [tensor.name for tensor in stat.manifest.tensors])
        except CheckpointError as error:
            raise Unsuitable(str(error), reason="UNSUPPORTED_ADAPTER", metadata={"checkpoint": digest}) from error

    async def known(self, digest: str) -> Found:
        """A checkpoint that some store holds, or learns of from its origins.

        NotFound when none does; Unreachable when a store that does not answer may; Unsuitable when only an origin may
        that refuses its store.
        """
        stores = self._all()
        holders = [m for m in stores if m.store and m.store.tier_of(digest)]
        others = [m for m in stores if m not in holders and (m.store is None or m.store.origins)]  # None: just joined
        silent: Unreachable | Unsuitable | None = None
        for store in [*holders, *others]:
            try:
                stat = await self._stores.stat(store.address, digest)
            except NotFound:
                continue
            except (Unreachable, Unsuitable) as error:  # Unsuitable: its origins refuse it
                silent = error
                continue
            return Found(stat.summary, stat.manifest.source, store.id)
        raise silent or NotFound(
            f"no store holds a checkpoint {digest!r}, nor has an origin of theirs it; Import its source first",
            reason="UNKNOWN_CHECKPOINT",
            metadata={"checkpoint": digest},
        )

    async def import_from(
        self, source: str, base: str = ""
    ) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Has the first store import a source; returns when the facts show the checkpoint."""
        if not source:
            raise InvalidRequest.field(
                "source", "must be the absolute path or the address of a Hugging Face checkpoint"
            )
        store = self._all()[0]
        async with aclosing(self._stores.import_checkpoint(store.address, source, base)) as events:
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
    """The checkpoint itself, no adapter, or Unsuitable when the engine cannot run its architecture."""
    if summary.runner is None:
        raise Unsuitable(
            f"{summary.architecture} cannot be served: its weights are quantized, or it keeps nothing of a sequence "
            "that it could go on from; if an older release has imported it, import it again",
            reason="UNSUPPORTED_ARCHITECTURE",
            metadata={"architecture": summary.architecture, "checkpoint": summary.digest},
        )
    return summary
