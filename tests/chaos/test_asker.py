"""A client that comes back, against gateways that do what a script says."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from grpc import StatusCode, aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceServicer, add_GenerationServiceServicer_to_server

from chaos.asker import Asker
from chaos.heard import Heard
from chaos.questions import Question, Sort
from mesh.clients.channel import Channels
from mesh.clients.gateway_records import MODELS_CHOICE

QUESTION = Question("r1", Sort.SEEDED, "llama", "The tide is", MODELS_CHOICE)
STARTED = pb.GenerateResponse(started=pb.Started(checkpoint="digest"))
END = pb.GenerateResponse(finished=pb.Finished(answers=[pb.AnswerEnd()]))
Script = Sequence[pb.GenerateResponse | StatusCode]


def delta(seq: int, *tokens: int) -> pb.GenerateResponse:
    """New tokens."""
    return pb.GenerateResponse(delta=pb.Delta(seq=seq, token_ids=tokens))


class Scripted(GenerationServiceServicer):
    """Answers each request with the next script."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = iter(scripts)
        self.asked: list[pb.GenerateRequest] = []

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:  # noqa: N802
        """As gRPC calls it."""
        self.asked.append(request)
        for step in next(self._scripts):
            if isinstance(step, StatusCode):
                await context.abort(step, "as the script says")
            yield step


@asynccontextmanager
async def asking(*gateways: Scripted) -> AsyncIterator[tuple[Asker, list[int]]]:
    """An asker of these gateways, and how many tokens it was told of at a time."""
    told: list[int] = []
    async with AsyncExitStack() as stack:
        addresses = []
        for gateway in gateways:
            server = aio.server()
            add_GenerationServiceServicer_to_server(gateway, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
        channels = Channels()
        stack.push_async_callback(channels.close)
        yield Asker(channels, addresses, told.append), told


async def test_a_broken_stream_goes_on_at_the_next_gateway_after_what_came() -> None:
    first = Scripted([STARTED, delta(0, 5, 6), StatusCode.UNAVAILABLE])
    second = Scripted([STARTED, delta(2, 7), END])
    heard = Heard(QUESTION)
    async with asking(first, second) as (asker, told):
        await asker.ask(heard, 0)
    assert (heard.answers[0].tokens, heard.failure, heard.out_of_turn) == ([5, 6, 7], "", [])
    assert told == [2, 1]
    assert heard.came_back.total() == 1
    (again,) = second.asked
    assert (again.request_id, again.checkpoint) == ("r1", "digest")
    assert [list(one.token_ids) for one in again.received] == [[5, 6]]


async def test_an_error_that_is_no_ones_absence_is_the_end() -> None:
    heard = Heard(QUESTION)
    async with asking(Scripted([STARTED, delta(0, 5), StatusCode.INTERNAL])) as (asker, _):
        await asker.ask(heard, 0)
    assert heard.failure.endswith("as the script says")
    assert not heard.came_back


async def test_a_stream_that_ends_without_a_last_word_is_a_failure() -> None:
    heard = Heard(QUESTION)
    async with asking(Scripted([STARTED, delta(0, 5)])) as (asker, _):
        await asker.ask(heard, 0)
    assert heard.failure.startswith("ENDED")
