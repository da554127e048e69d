"""Clients that ask and do not read: what they cost, and whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceStub

from mesh.clients.gateway_records import SamplingWishes
from mesh.clients.gateway_wire import sampling_to
from services.gateway.journal import MOST_NEWS
from tests.e2e.asking import PATIENCE_S, PROMPT, ask, is_idle, replica_status, until
from tests.e2e.conftest import Running
from tests.e2e.memory import memory_of

TOKENS, CLIENTS = 6 * MOST_NEWS, 2
WISHES = SamplingWishes(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, top_logprobs=5)
TOKEN_BYTES = 6_000  # that a gateway may keep for a token with five likely ones, all of it Python objects
WINDOW = [("grpc.http2.bdp_probe", 0)]  # which then stays at 64 KiB: what is on its way, and not a gateway's any more
Call = aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]


@asynccontextmanager
async def unread(address: str, model: str) -> AsyncIterator[Call]:
    """A stream whose client has read the first message, and reads no more."""
    request = pb.GenerateRequest(model=model, text=PROMPT, sampling=sampling_to(WISHES))
    async with aio.insecure_channel(address, options=WINDOW) as channel:
        call: Call = GenerationServiceStub(channel).Generate(request, timeout=PATIENCE_S)
        assert await call.read() is not aio.EOF
        yield call
        call.cancel()


async def rest(call: Call) -> tuple[list[pb.Delta], pb.Finished]:
    """All of it."""
    events: list[pb.GenerateResponse] = []
    while isinstance(response := await call.read(), pb.GenerateResponse):
        events.append(response)
    return [event.delta for event in events if event.HasField("delta")], events[-1].finished


async def test_a_client_that_does_not_read_costs_a_gateway_its_answer_and_nobody_else_anything(
    shared: Running,
) -> None:
    """Its worker is done with it, others are served, and it can read on, in messages of a usual size."""
    await shared.deployed("llama")
    wanted = await ask(shared.client, "llama", replace(WISHES, top_logprobs=None))
    gateway = shared.cluster.process("gateway-1").pid
    before = memory_of(gateway).private
    async with (
        unread(shared.address, "llama") as one,
        unread(shared.address, "llama"),
    ):
        await until(lambda: replica_status(shared.cluster, wanted.started.worker_id, "llama"), is_idle)
        await until(shared.client.requests, lambda found: not found)  # nor does it hold a place
        assert memory_of(gateway).private - before < CLIENTS * TOKENS * TOKEN_BYTES
        assert (await ask(shared.client, "llama")).finished.completion_tokens
        deltas, finished = await rest(one)
    assert sum((tuple(delta.token_ids) for delta in deltas), ()) == wanted.token_ids
    assert "".join(delta.text for delta in deltas) == wanted.text
    assert sum(len(delta.logprobs) for delta in deltas) == finished.usage.completion_tokens == TOKENS
    assert max(len(delta.token_ids) for delta in deltas) == MOST_NEWS  # it did fall behind
