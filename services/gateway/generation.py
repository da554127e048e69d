"""GenerationService on the wire: requests in, events out."""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceServicer
from whimbrel.inference.v1 import inference_pb2

from mesh.clients.move_wire import answer_move_to
from mesh.clients.relay import FINISHES
from mesh.clients.sampling_wire import logprob_to
from mesh.clients.wire import START_KINDS, duration, progress_to, start_times_to
from mesh.errors import InvalidRequest, Unsuitable
from mesh.facts import RunnerKind
from mesh.requests import Progress
from mesh.state.catalogue import unknown_model
from mesh.state.mirror import Mirror
from services.gateway.answer import AnswerEnd, Answers, Event, Finished, Started, check_room
from services.gateway.asked import Asked
from services.gateway.conversation import conversation_from
from services.gateway.guides import check_guide
from services.gateway.journal import Question
from services.gateway.received import check_received, received_from
from services.gateway.sampling import resolve
from services.gateway.service_class import service_class
from services.gateway.strand import Delta, Prepared
from services.gateway.texts import Text, Texts

Context = aio.ServicerContext[Any, Any]
Request = pb.GenerateRequest | pb.ChatRequest
Tokenize = Callable[[Text], Awaitable[tuple[int, ...]]]
LONGEST_REQUEST_ID = 128
MOST_ANSWERS = 16


class GenerationServicer(GenerationServiceServicer):
    """Generate and Chat; they differ in how the prompt is made."""

    def __init__(self, mirror: Mirror, texts: Texts, answers: Answers, default_max_tokens: int) -> None:
        self._mirror, self._texts, self._answers = mirror, texts, answers
        self._default_max_tokens = default_max_tokens

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:  # noqa: N802
        """See the proto."""
        asked = await self._asked(request, partial(_prompt, request))
        async with aclosing(self._answers.run(asked)) as events:
            async for event in events:
                yield pb.GenerateResponse(**_event(event, asked))

    async def Chat(self, request: pb.ChatRequest, context: Context) -> AsyncIterator[pb.ChatResponse]:  # noqa: N802
        """See the proto."""
        asked = await self._asked(request, partial(_conversation, request))
        async with aclosing(self._answers.run(asked)) as events:
            async for event in events:
                yield pb.ChatResponse(**_event(event, asked))

    async def _asked(self, request: Request, tokens_by: Tokenize) -> Asked:
        arrived_s = time.monotonic()
        entry = self._mirror.facts.models.get(request.model)
        if entry is None:
            raise unknown_model(request.model)
        if entry.checkpoint.runner is RunnerKind.ENCODER:
            raise Unsuitable(f"{entry.name!r} embeds texts and generates none; call Embed", reason="NOT_GENERATIVE")
        if len(request.request_id) > LONGEST_REQUEST_ID:
            raise InvalidRequest.field("request_id", f"must be at most {LONGEST_REQUEST_ID} characters")
        if request.n > MOST_ANSWERS:
            raise InvalidRequest.field("n", f"must be at most {MOST_ANSWERS}", reason="TOO_MANY_ANSWERS")
        service = service_class(request.service_class)
        received = received_from(request, request.n or 1)
        request_id = request.request_id or uuid.uuid4().hex
        prepare = partial(self._prepared, request, tokens_by, request_id)
        prepared = await prepare(request.checkpoint if received else entry.checkpoint.digest)
        check_received(received, prepared)
        return Asked(
            request_id=request_id,
            model=entry.name,
            stops=tuple(request.sampling.stop),
            arrived_s=arrived_s,
            prepared=prepared,
            prepare=prepare,
            answers=request.n or 1,
            service=service,
            received=received,
        )

    async def _prepared(self, request: Request, tokens_by: Tokenize, request_id: str, digest: str) -> Prepared:
        """The request in the tokens of one version of its model, with that version's defaults."""
        text = await self._texts.of(digest)
        prompt = await tokens_by(text)
        room = check_room(prompt, text.max_context)
        sampling = resolve(request.sampling, text, room, self._default_max_tokens, request_id)
        await check_guide(request.sampling, text)
        return Prepared(Question(digest, prompt, sampling), text)


async def _conversation(request: pb.ChatRequest, text: Text) -> tuple[int, ...]:
    rendered = await text.render(conversation_from(request))
    return await text.encode(rendered, special=False)


async def _prompt(request: pb.GenerateRequest, text: Text) -> tuple[int, ...]:
    match request.WhichOneof("prompt"):
        case "text" if request.text:
            return await text.encode(request.text)
        case "token_ids" if request.token_ids.ids:
            return _known_ids(tuple(request.token_ids.ids), text)
        case _:
            raise InvalidRequest.field("prompt", "must be a text or token_ids, not empty", reason="EMPTY_PROMPT")


def _known_ids(ids: tuple[int, ...], text: Text) -> tuple[int, ...]:
    if text.vocabulary and max(ids) >= text.vocabulary:
        description = f"must be below the vocabulary's {text.vocabulary}; got {max(ids)}"
        raise InvalidRequest.field("token_ids", description, reason="UNKNOWN_TOKEN")
    return ids


def _event(event: Event, asked: Asked) -> dict[str, Any]:
    """The one field of a response's oneof."""
    match event:
        case Progress():
            return {"progress": progress_to(event)}
        case Started():
            return {"started": _started(event, asked)}
        case Delta():
            return {"delta": _delta(event)}
        case Finished():
            return {"finished": _finished(event)}


def _delta(event: Delta) -> pb.Delta:
    likely = [logprob_to(one) for one in event.logprobs]
    return pb.Delta(text=event.text, token_ids=event.tokens, seq=event.seq, index=event.index, logprobs=likely)


def _started(event: Started, asked: Asked) -> pb.Started:
    return pb.Started(
        request_id=asked.request_id,
        worker_id=event.placement.worker_id,
        start_kind=START_KINDS[event.placement.start_kind],
        times=start_times_to(event.placement.times),
        prompt_tokens=event.prompt_tokens,
        checkpoint=event.placement.digest,
    )


def _finished(event: Finished) -> pb.Finished:
    first = event.answers[0]
    return pb.Finished(
        finish_reason=FINISHES[first.reason],
        usage=inference_pb2.Usage(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens),
        start_kind=START_KINDS[event.placement.start_kind],
        times=start_times_to(event.placement.times),
        time_to_first_token=duration(event.first_token_s),
        total=duration(event.total_s),
        worker_id=event.placement.worker_id,
        stop_text=first.stop,
        checkpoint=event.placement.digest,
        answers=[_end(answer) for answer in event.answers],
        moves=[answer_move_to(move) for move in event.moves],
    )


def _end(answer: AnswerEnd) -> pb.AnswerEnd:
    return pb.AnswerEnd(finish_reason=FINISHES[answer.reason], stop_text=answer.stop, completion_tokens=answer.tokens)
