"""EmbeddingService on the wire: texts in, vectors out."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import EmbeddingServiceServicer

from mesh.clients.gateway_wire import POOLINGS
from mesh.clients.wire import START_KINDS, duration, progress_to, start_times_to
from mesh.errors import InvalidRequest
from mesh.facts import ModelEntry, RunnerKind
from mesh.requests import Pooling, Progress
from mesh.state.catalogue import unknown_model
from mesh.state.mirror import Mirror
from services.gateway.embedding import Embedded, Embeddings, Event, ToEmbed, Vectors
from services.gateway.service_class import service_class
from services.gateway.texts import Text, Texts

Context = aio.ServicerContext[Any, Any]
MOST_INPUTS = 2048
LONGEST_REQUEST_ID = 128
_POOLINGS = {number: pooling for pooling, number in POOLINGS.items()}


class EmbeddingServicer(EmbeddingServiceServicer):
    """Embed."""

    def __init__(self, mirror: Mirror, texts: Texts, embeddings: Embeddings) -> None:
        self._mirror, self._texts, self._embeddings = mirror, texts, embeddings

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> AsyncIterator[pb.EmbedResponse]:  # noqa: N802
        """See the proto."""
        asked = await self._asked(request)
        async with aclosing(self._embeddings.run(asked)) as events:
            async for event in events:
                yield _response(event, request)

    async def _asked(self, request: pb.EmbedRequest) -> ToEmbed:
        arrived_s = time.monotonic()
        entry = self._mirror.facts.models.get(request.model)
        if entry is None:
            raise unknown_model(request.model)
        if len(request.request_id) > LONGEST_REQUEST_ID:
            raise InvalidRequest.field("request_id", f"must be at most {LONGEST_REQUEST_ID} characters")
        service = service_class(request.service_class)
        text = await self._texts.of(entry.checkpoint.digest)
        return ToEmbed(
            request_id=request.request_id or uuid.uuid4().hex,
            model=entry.name,
            digest=entry.checkpoint.digest,
            inputs=await _inputs(request, text),
            pooling=_pooling(request, text, entry),
            arrived_s=arrived_s,
            service=service,
        )


def _pooling(request: pb.EmbedRequest, text: Text, entry: ModelEntry) -> Pooling:
    if request.pooling in _POOLINGS:
        return _POOLINGS[request.pooling]
    return text.pooling.choose(encoder=entry.checkpoint.runner is RunnerKind.ENCODER)


async def _inputs(request: pb.EmbedRequest, text: Text) -> tuple[tuple[int, ...], ...]:
    count = len(request.texts) + len(request.token_ids)
    if not count or (request.texts and request.token_ids):
        raise InvalidRequest.field("texts", "must have at least one, or else token_ids must", reason="EMPTY_PROMPT")
    if count > MOST_INPUTS:
        raise InvalidRequest.field("texts", f"must be at most {MOST_INPUTS}; send the rest in another request")
    most = text.max_context if request.truncate else None
    given = [await text.encode(one, most=most) for one in request.texts] or [
        tuple(one.ids[:most]) for one in request.token_ids
    ]
    field = "texts" if request.texts else "token_ids"
    for index, ids in enumerate(given):
        _check(f"{field}[{index}]", ids, text)
    return tuple(given)


def _check(field: str, ids: tuple[int, ...], text: Text) -> None:
    if not ids:
        raise InvalidRequest.field(field, "must have at least one token", reason="EMPTY_PROMPT")
    if text.vocabulary and max(ids) >= text.vocabulary:
        raise InvalidRequest.field(field, f"must be below the vocabulary's {text.vocabulary}", reason="UNKNOWN_TOKEN")
    if len(ids) > text.max_context:
        message = f"has {len(ids)} tokens; this model takes {text.max_context}: shorten it, or set truncate"
        raise InvalidRequest.field(field, message, reason="PROMPT_TOO_LONG")


def _response(event: Event, request: pb.EmbedRequest) -> pb.EmbedResponse:
    match event:
        case Progress():
            return pb.EmbedResponse(progress=progress_to(event))
        case Vectors(first, values):
            made = [pb.Embedding(values=_shaped(value, request)) for value in values]
            return pb.EmbedResponse(embeddings=pb.Embeddings(first=first, embeddings=made))
        case Embedded(place, tokens, total_s):
            embedded = pb.Embedded(
                prompt_tokens=tokens,
                worker_id=place.worker_id,
                start_kind=START_KINDS[place.start_kind],
                times=start_times_to(place.times),
                total=duration(total_s),
                checkpoint=place.digest,
            )
            return pb.EmbedResponse(embedded=embedded)


def _shaped(values: list[float], request: pb.EmbedRequest) -> list[float]:
    """Cut, then scaled to length 1: as models whose vectors may be cut (Matryoshka) want it."""
    vector = np.asarray(values[: request.dimensions or None], dtype=np.float32)
    length = float(np.linalg.norm(vector))
    scaled = vector if request.raw_length or length == 0.0 else vector / length
    kept: list[float] = scaled.tolist()
    return kept
