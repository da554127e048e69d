"""A client whose answer breaks off: it comes back for the rest, at whichever gateway, and reads one answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient, NoGateway
from mesh.clients.gateway_records import AnswerEvent, ChatMessage, Delta, Finished, Started
from mesh.errors import MeshError, NoRoom, Unreachable
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import Fakes, finished

DIGEST = "ab" * 32
LOST = Unreachable("worker-1 was lost", reason="WORKER_LOST")
WAIT_S = 60.0


class Teller:
    """Tells an answer of these words, of which each is a token, breaking off with an error after so many."""

    def __init__(self, *told: str, breaks: dict[int, MeshError | None]) -> None:
        self.told, self.breaks = told, breaks  # None: stands still
        self.stood_still = asyncio.Event()

    async def __call__(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        """From what the client has on."""
        has = [token for one in request.received for token in one.token_ids]
        yield {"progress": words.Progress(phase=words.PHASE_QUEUED)}
        for seq in range(len(has), len(self.told)):
            if seq in self.breaks and seq >= len(has):
                await self._break(self.breaks.pop(seq))
            if seq == len(has):
                yield {"started": pb.Started(request_id="r7", worker_id="worker-1", checkpoint=DIGEST)}
            yield {"delta": pb.Delta(text=self.told[seq], token_ids=[100 + seq], seq=seq)}
        yield {"finished": finished()}

    async def _break(self, error: MeshError | None) -> None:
        if error:
            raise error
        self.stood_still.set()
        await asyncio.Event().wait()


async def heard(client: GatewayClient, **more: Any) -> list[AnswerEvent]:
    """All of an answer."""
    async with asyncio.timeout(WAIT_S):
        return [event async for event in client.generate("curlew", "What calls?", **more)]


def text_of(events: list[AnswerEvent]) -> str:
    """What is read."""
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_the_rest_is_asked_for_with_what_there_is_and_one_answer_is_read(fakes: Fakes) -> None:
    fakes.gateway.answer = Teller("A", " curlew", " calls", ".", breaks={1: LOST, 3: LOST})
    async with connect(fakes.address) as channel:
        events = await heard(GatewayClient(channel, fakes.address))
    assert text_of(events) == "A curlew calls."
    assert len([event for event in events if isinstance(event, Started | Finished)]) == 2
    first, second, third = fakes.gateway.requests
    assert (list(first.received), first.checkpoint, first.request_id) == ([], "", "")
    for request, tokens in ((second, [100]), (third, [100, 101, 102])):
        assert [(one.index, list(one.token_ids)) for one in request.received] == [(0, tokens)]
        assert (request.checkpoint, request.request_id) == (DIGEST, "r7")
        assert (request.model, request.text) == ("curlew", "What calls?")
    end = events[-1]
    assert isinstance(end, Finished)
    assert 0 < end.time_to_first_token_s < end.total_s  # of all streams together, not the last one's


async def test_a_conversation_goes_on_too_under_the_clients_own_id(fakes: Fakes) -> None:
    fakes.gateway.answer = Teller("A", " curlew", breaks={1: LOST})
    async with connect(fakes.address) as channel, asyncio.timeout(WAIT_S):
        client = GatewayClient(channel, fakes.address)
        said = client.chat("curlew", [ChatMessage("user", "What calls?")], request_id="r7")
        assert text_of([event async for event in said]) == "A curlew"
    assert [request.request_id for request in fakes.gateway.requests] == ["r7", "r7"]
    assert fakes.gateway.requests[1].messages[0].content == "What calls?"


async def test_each_of_several_answers_is_told_of(fakes: Fakes) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        if request.received:
            yield {"finished": finished()}
            return
        yield {"started": pb.Started(request_id="r7", checkpoint=DIGEST)}
        yield {"delta": pb.Delta(token_ids=[7, 8], index=2)}
        yield {"delta": pb.Delta(token_ids=[5], index=0)}
        raise LOST

    fakes.gateway.answer = answer
    async with connect(fakes.address) as channel:
        await heard(GatewayClient(channel, fakes.address), answers=3)
    again = fakes.gateway.requests[1]
    assert again.n == 3
    assert {one.index: list(one.token_ids) for one in again.received} == {0: [5], 2: [7, 8]}


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("2 workers were lost", reason="POISONOUS"),
        NoRoom("it will never fit", reason="NO_WORKER_LARGE_ENOUGH"),
    ],
)
async def test_what_would_fail_again_is_not_asked_again(fakes: Fakes, error: MeshError) -> None:
    fakes.gateway.answer = Teller("A", " curlew", breaks={1: error})
    async with connect(fakes.address) as channel:
        with pytest.raises(type(error)) as caught:
            await heard(GatewayClient(channel, fakes.address))
    assert caught.value.reason == error.reason
    assert len(fakes.gateway.requests) == 1


async def test_an_answer_that_has_begun_waits_for_room(fakes: Fakes) -> None:
    full = NoRoom("the queue is full", reason="QUEUE_FULL", retry_after_s=0.01)
    fakes.gateway.answer = Teller("A", " curlew", breaks={1: full})
    async with connect(fakes.address) as channel:
        assert text_of(await heard(GatewayClient(channel, fakes.address))) == "A curlew"


async def test_a_request_that_is_turned_away_before_it_has_begun_is_the_callers_to_send_again(fakes: Fakes) -> None:
    fakes.gateway.answer = Teller("A", breaks={0: LOST})
    async with connect(fakes.address) as channel:
        with pytest.raises(Unreachable):
            await heard(GatewayClient(channel, fakes.address))
    assert len(fakes.gateway.requests) == 1


async def test_it_asks_only_for_so_long_without_anything_new(fakes: Fakes) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        if not request.received:
            yield {"started": pb.Started(request_id="r7", checkpoint=DIGEST)}
            yield {"delta": pb.Delta(token_ids=[5])}
        raise LOST

    fakes.gateway.answer = answer
    async with connect(fakes.address) as channel:
        with pytest.raises(Unreachable) as caught:
            await heard(GatewayClient(channel, fakes.address, patience_s=0.3))
    assert caught.value.reason == "WORKER_LOST"
    assert 2 <= len(fakes.gateway.requests) <= 8


async def test_a_gateway_that_dies_is_followed_by_another(fakes: Fakes) -> None:
    async with AsyncExitStack() as stack, AsyncExitStack() as dying:
        one = await dying.enter_async_context(Fakes().serving())
        one.gateway.answer = teller = Teller("A", " curlew", " calls", breaks={2: None})
        fakes.gateway.answer = Teller("A", " curlew", " calls", breaks={})
        channels = [await stack.enter_async_context(connect(address)) for address in (one.address, fakes.address)]
        client = GatewayClient(channels[0], one.address, elsewhere=channels[1:])
        asking = asyncio.create_task(heard(client))
        async with asyncio.timeout(WAIT_S):
            await teller.stood_still.wait()
        await dying.aclose()
        assert text_of(await asking) == "A curlew calls"
    (rest,) = fakes.gateway.requests
    assert list(rest.received[0].token_ids) == [100, 101]


async def test_one_that_dies_before_it_has_said_a_word_of_the_answer_is_followed_too(fakes: Fakes) -> None:
    fakes.gateway.answer = Teller("A", breaks={})
    async with connect("127.0.0.1:1") as nobody, connect(fakes.address) as channel:
        client = GatewayClient(nobody, "127.0.0.1:1", elsewhere=[channel])
        assert text_of(await heard(client)) == "A"
        with pytest.raises(NoGateway):
            await heard(GatewayClient(nobody, "127.0.0.1:1", elsewhere=[nobody]))


async def test_a_command_writes_one_whole_answer(fakes: Fakes) -> None:
    async with AsyncExitStack() as dying:
        one = await dying.enter_async_context(Fakes().serving())
        one.gateway.answer = teller = Teller("A", " curlew", " calls", breaks={2: None})
        fakes.gateway.answer = Teller("A", " curlew", " calls", breaks={})
        command = Whimbrel(f"{one.address},{fakes.address}")
        process = await command.start("generate", "curlew", "What calls?")
        async with asyncio.timeout(WAIT_S):
            await teller.stood_still.wait()
        await dying.aclose()
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"A curlew calls\n", b"")
