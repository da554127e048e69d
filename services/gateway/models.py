"""ModelService on the wire: the catalogue's public face."""

import re
import time
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import ModelServiceServicer
from whimbrel.inference.v1 import inference_pb2

from mesh.checkpoint.layout import is_digest
from mesh.clients.wire import checkpoint_to, import_progress_to, load_progress_to, tier_from
from mesh.errors import Conflict, InvalidRequest, NotFound, Unsuitable
from mesh.facts import CheckpointSummary, ClusterFacts, ModelEntry, Tier
from mesh.requests import ImportProgress
from mesh.serve import Ground
from mesh.state.catalogue import ANY_REVISION, Catalogue, taken_model, unknown_model
from mesh.state.mirror import Mirror
from services.gateway.checkpoints import Checkpoints, Found
from services.gateway.describe import model_of
from services.gateway.spec import UPDATABLE, asked, check
from services.gateway.tiers import Tiers
from services.gateway.watch import EVENT_TYPES, watch

Context = aio.ServicerContext[Any, Any]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
PAGE, LARGEST_PAGE = 100, 1000
SEEN_S = 5.0


class ModelServicer(ModelServiceServicer):
    """Import, Deploy, Update, Rollback, Delete, Get, List, Watch, Prefetch, Evict."""

    def __init__(self, ground: Ground, mirror: Mirror, checkpoints: Checkpoints, tiers: Tiers) -> None:
        self._ground, self._mirror, self._checkpoints, self._tiers = ground, mirror, checkpoints, tiers
        self._catalogue = Catalogue(ground.state)

    async def Import(  # noqa: N802
        self, request: pb.ModelServiceImportRequest, context: Context
    ) -> AsyncIterator[pb.ModelServiceImportResponse]:
        """See the proto."""
        async for event in self._checkpoints.import_from(request.source, request.base):
            if isinstance(event, ImportProgress):
                yield pb.ModelServiceImportResponse(progress=import_progress_to(event))
            else:
                yield pb.ModelServiceImportResponse(checkpoint=checkpoint_to(event, request.source))

    async def Deploy(  # noqa: N802
        self, request: pb.ModelServiceDeployRequest, context: Context
    ) -> AsyncIterator[pb.ModelServiceDeployResponse]:
        """See the proto."""
        spec = request.spec
        if not NAME.fullmatch(request.name):
            raise InvalidRequest.field("name", "must be 1 to 128 letters, digits, '.', '_', '-', '/' or ':'")
        if bool(spec.checkpoint) == bool(spec.source):
            raise InvalidRequest.field("spec", "must name a checkpoint or a source, not both")
        if spec.base and not spec.source:
            raise InvalidRequest.field("spec.base", "goes with a source; a checkpoint knows its own")
        check(spec)
        self._refuse_taken(request.name)
        if request.validate_only and spec.source:
            return
        summary: CheckpointSummary | None = None
        async for event in self._checkpoints.find_or_import(spec.checkpoint, spec.source, spec.base):
            if isinstance(event, ImportProgress):
                yield pb.ModelServiceDeployResponse(progress=import_progress_to(event))
            else:
                summary = event
        if summary is None or request.validate_only:
            return
        now = time.time()
        entry = asked(ModelEntry(request.name, summary, spec.source, None, created_s=now, updated_s=now), spec)
        stored = await self._seen(await self._catalogue.add(entry))
        yield pb.ModelServiceDeployResponse(model=model_of(self._mirror.facts, stored))

    async def Update(  # noqa: N802
        self, request: pb.ModelServiceUpdateRequest, context: Context
    ) -> pb.ModelServiceUpdateResponse:
        """See the proto."""
        entry = self._current(request.model.name, request.model.etag)
        paths = set(request.update_mask.paths)
        if not paths or not paths <= UPDATABLE:
            raise InvalidRequest.field("update_mask", f"must name some of {', '.join(sorted(UPDATABLE))}")
        if "spec.checkpoint" in paths:
            entry = _moved(entry, await self._checkpoints.find(request.model.spec.checkpoint))
        entry = asked(entry, request.model.spec, paths)
        return pb.ModelServiceUpdateResponse(model=await self._replaced(entry))

    async def Rollback(  # noqa: N802
        self, request: pb.ModelServiceRollbackRequest, context: Context
    ) -> pb.ModelServiceRollbackResponse:
        """See the proto."""
        entry = self._current(request.name, request.etag)
        if entry.previous is None:
            raise Unsuitable(
                f"model {request.name!r} has had one checkpoint only; Update gives it another",
                reason="NO_PREVIOUS",
                metadata={"model": request.name},
            )
        entry = _moved(entry, await self._checkpoints.find(entry.previous.digest))
        return pb.ModelServiceRollbackResponse(model=await self._replaced(entry))

    async def Delete(  # noqa: N802
        self, request: pb.ModelServiceDeleteRequest, context: Context
    ) -> pb.ModelServiceDeleteResponse:
        """See the proto."""
        revision = self._current(request.name, request.etag).revision if request.etag else ANY_REVISION
        await self._catalogue.remove(request.name, revision)
        await self._mirror.until(lambda facts: request.name not in facts.models, SEEN_S)
        return pb.ModelServiceDeleteResponse()

    async def Get(self, request: pb.ModelServiceGetRequest, context: Context) -> pb.ModelServiceGetResponse:  # noqa: N802
        """See the proto."""
        return pb.ModelServiceGetResponse(model=model_of(self._mirror.facts, self._current(request.name)))

    async def List(self, request: pb.ModelServiceListRequest, context: Context) -> pb.ModelServiceListResponse:  # noqa: N802
        """See the proto. The page token is the last name of the page before."""
        if not 0 <= request.page_size <= LARGEST_PAGE:
            raise InvalidRequest.field("page_size", f"must lie in [0, {LARGEST_PAGE}]")
        facts, size = self._mirror.facts, request.page_size or PAGE
        names = sorted(name for name in facts.models if name > request.page_token)
        page, more = names[:size], len(names) > size
        models = [model_of(facts, facts.models[name]) for name in page]
        return pb.ModelServiceListResponse(models=models, next_page_token=page[-1] if more else "")

    async def Watch(  # noqa: N802
        self, request: pb.ModelServiceWatchRequest, context: Context
    ) -> AsyncIterator[pb.ModelServiceWatchResponse]:
        """See the proto."""
        names = frozenset(request.names)
        async for change in watch(self._mirror, lambda facts: _models(facts, names), self._ground.draining):
            yield pb.ModelServiceWatchResponse(type=EVENT_TYPES[change.kind], model=change.item)

    async def Prefetch(  # noqa: N802
        self, request: pb.ModelServicePrefetchRequest, context: Context
    ) -> AsyncIterator[pb.ModelServicePrefetchResponse]:
        """See the proto."""
        digest, tier, store_id = self._meant(request.name, request.checkpoint), _tier(request.tier), request.store_id
        if request.checkpoint and not store_id and not self._tiers.having(digest):
            store_id = (await self._checkpoints.known(digest)).store_id
        async with aclosing(self._tiers.prefetch(digest, tier, store_id)) as moves:
            async for move in moves:
                progress = load_progress_to(move.progress)
                yield pb.ModelServicePrefetchResponse(store_id=move.store_id, progress=progress)

    async def Evict(  # noqa: N802
        self, request: pb.ModelServiceEvictRequest, context: Context
    ) -> pb.ModelServiceEvictResponse:
        """See the proto."""
        digest, tier, store_id = self._meant(request.name, request.checkpoint), _tier(request.tier), request.store_id
        if request.checkpoint and not store_id and not self._tiers.having(digest):
            raise NotFound(
                f"no store has a checkpoint {digest}: nothing is to be evicted; `whimbrel status` says what each has",
                reason="UNKNOWN_CHECKPOINT",
                metadata={"checkpoint": digest},
            )
        return pb.ModelServiceEvictResponse(freed_bytes=await self._tiers.evict(digest, tier, store_id))

    def _meant(self, name: str, checkpoint: str) -> str:
        """The digest of a model's current checkpoint, or the one given."""
        if bool(name) == bool(checkpoint):
            raise InvalidRequest.field("checkpoint", "must be given, or a model's name; one of the two, not both")
        if checkpoint and not is_digest(checkpoint):
            raise InvalidRequest.field("checkpoint", "must be a digest: 64 lowercase hex digits")
        return checkpoint or self._current(name).checkpoint.digest

    def _refuse_taken(self, name: str) -> None:
        """Before an import's minutes; the catalogue's own check decides."""
        if name in self._mirror.facts.models:
            raise taken_model(name)

    def _current(self, name: str, etag: str = "") -> ModelEntry:
        entry = self._mirror.facts.models.get(name)
        if entry is None:
            raise unknown_model(name)
        if etag and etag != str(entry.revision):
            raise Conflict(f"model {name!r} has etag {entry.revision} by now, not {etag}; Get it again")
        return entry

    async def _replaced(self, entry: ModelEntry) -> pb.Model:
        """The entry in the catalogue, in place of the revision that it was made from."""
        stored = await self._seen(await self._catalogue.replace(replace(entry, updated_s=time.time())))
        return model_of(self._mirror.facts, stored)

    async def _seen(self, entry: ModelEntry) -> ModelEntry:
        """Waits until this gateway's own facts show a write, so that its client can use it at once."""

        def there(facts: ClusterFacts) -> bool:
            known = facts.models.get(entry.name)
            return known is not None and known.revision >= entry.revision

        await self._mirror.until(there, SEEN_S)
        return entry


def _models(facts: ClusterFacts, names: Collection[str]) -> dict[str, pb.Model]:
    return {n: model_of(facts, entry) for n, entry in facts.models.items() if not names or n in names}


def _moved(entry: ModelEntry, found: Found) -> ModelEntry:
    """The entry with another checkpoint; the one it had is what a rollback goes back to."""
    if found.summary.digest == entry.checkpoint.digest:
        return entry
    return replace(entry, checkpoint=found.summary, source=found.source, previous=entry.checkpoint)


def _tier(number: inference_pb2.Tier.ValueType) -> Tier:
    if number == inference_pb2.TIER_UNSPECIFIED:
        return Tier.DRAM
    if number not in (inference_pb2.TIER_DISK, inference_pb2.TIER_DRAM):
        raise InvalidRequest.field("tier", "must be TIER_DISK or TIER_DRAM")
    return tier_from(number)
