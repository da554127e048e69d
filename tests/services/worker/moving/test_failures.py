"""Moves that come to nothing, at each of their stages: the answer goes on where it was, or from what has come, and
nobody keeps anything of it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

from mesh.clients.channel import Channels
from mesh.clients.pipe import TOKEN_BYTES
from mesh.clients.receive_wire import Blocks, Manifest, Opening, StateTensor
from mesh.clients.receiving import Flow, Sending, sending
from mesh.errors import MeshError, NotFound
from mesh.moves import SOURCE_ENDED, Abandon, Expect, MoveFailed, Ready, Reserved, Send, Stopped
from mesh.requests import Cancel, FinishReason, MoveKind
from services.worker.engine.batch import Limits
from services.worker.engine.model import probe_kv
from services.worker.engine.packed_replica import PackedReplica
from services.worker.moving.limits import MoveLimits
from services.worker.moving.pieces import checksum
from tests.services.worker.engine.tiny import BLOCK_TOKENS, body, greedy, prompt, replica
from tests.services.worker.moving.test_moves import Pair, alone, between, copied
from tests.services.worker.moving.workers import NAME, Line, Worker, grant, worker

WHOLE = 160
LOST = "CALL_ENDED"  # why a call was ended is lost to whoever is writing then
FLOW = Flow(1 << 20, 30.0)
BLOCK_BYTES = 2 * 2 * 2 * 16 * 4 * BLOCK_TOKENS  # layers, keys and values, heads, width, bytes


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with between(replica(name=NAME), replica(name=NAME), tmp_path) as both:
        yield both


async def under_way(source: Worker, target: Worker, tokens: int = 30) -> Reserved:
    """A request that runs at the source, and is expected at the target."""
    source.line.send(grant())
    log = await source.line.tokens("r", 1, tokens)
    target.line.send(Expect("move", grant(log=log), MoveKind.KV))
    return await target.line.event(Reserved)


async def stays(source: Worker) -> None:
    """The answer comes whole from the source, under its first epoch."""
    assert await source.line.whole("r", 1) == greedy("llama", prompt(17), WHOLE)


async def test_one_that_is_expected_and_given_up_leaves_the_source_as_it_was(pair: Pair) -> None:
    source, target = pair
    await under_way(source, target)
    target.line.send(Abandon("move"))
    await stays(source)


async def test_a_source_that_stood_still_goes_on_from_there_when_it_is_granted_again(pair: Pair) -> None:
    source, target = pair
    source.line.send(grant())
    await source.line.tokens("r", 1, 30)
    await copied(source, target, grant())
    for one in pair:
        one.line.send(Abandon("move"))
    log, steps = source.line.of("r", 1), source.engine.stats().replicas[NAME].steps
    source.line.send(grant(epoch=2, log=log))
    assert log + await source.line.whole("r", 2) == greedy("llama", prompt(17), WHOLE)
    assert source.engine.stats().replicas[NAME].steps - steps == WHOLE - len(log)


async def test_a_source_that_stands_still_does_so_until_it_is_granted_or_cancelled(pair: Pair) -> None:
    source, target = pair
    source.line.send(grant())
    await source.line.tokens("r", 1, 30)
    await copied(source, target, grant())
    for one in pair:
        one.line.send(Abandon("move"))
    before = source.line.of("r", 1)
    await alone(source, grant())
    assert source.line.of("r", 1) == before
    source.line.send(Cancel("r", 1))


async def test_a_target_that_is_lost_meanwhile_fails_the_move_and_costs_the_source_nothing(tmp_path: Path) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as source:
        async with worker(replica(name=NAME), scratch=tmp_path) as target:
            await under_way(source, target)
        source.line.send(Send("move", "r", 1, target.address, 0))
        assert (await source.line.event(MoveFailed)).reason == "UNREACHABLE"
        await stays(source)
        await source.is_idle()


async def test_what_has_come_is_gone_on_from_when_the_source_is_lost(tmp_path: Path) -> None:
    target_replica = replica(name=NAME, limits=Limits(batch_tokens=4))
    async with worker(target_replica, scratch=tmp_path) as target:
        async with worker(replica(name=NAME), scratch=tmp_path) as source:
            source.line.send(grant(prompt=prompt(100)))
            await source.line.tokens("r", 1, 30)
            await copied(source, target, grant(prompt=prompt(100)))
            log = source.line.of("r", 1)[:25]
        target.line.send(grant(prompt=prompt(100), epoch=2, log=log, move_id="move"))
        assert log + await target.line.whole("r", 2) == greedy("llama", prompt(100), WHOLE)
        (stats,) = target.engine.stats().replicas.values()
        assert stats.steps == stats.tokens
        await target.is_idle()


async def test_a_grant_for_a_move_that_nobody_knows_computes_everything(pair: Pair) -> None:
    _, target = pair
    log = greedy("llama", prompt(17), 20)
    target.line.send(grant(epoch=2, log=log, move_id="unheard of"))
    assert log + await target.line.whole("r", 2) == greedy("llama", prompt(17), WHOLE)


async def test_a_grant_takes_nothing_that_came_for_another_request(pair: Pair) -> None:
    source, target = pair
    await under_way(source, target)
    target.line.send(grant("other", move_id="move", prompt=prompt(9)))
    assert await target.line.whole("other", 1) == greedy("llama", prompt(9), WHOLE)
    target.line.send(Abandon("move"))
    await stays(source)


async def test_a_request_that_ends_meanwhile_ends_once(pair: Pair) -> None:
    source, target = pair
    source.line.send(grant())
    await stays(source)
    source.line.send(Send("move", "r", 1, target.address, 0))
    assert (await source.line.event(MoveFailed)).reason == "REQUEST_NOT_HERE"
    assert [frame.finish for frame in source.line.frames if frame.finish] == [FinishReason.LENGTH]


async def test_a_late_send_is_ignored(pair: Pair) -> None:
    source, target = pair
    await under_way(source, target)
    log = source.line.of("r", 1)
    source.line.send(grant(epoch=2, log=log))
    source.line.send(Send("move", "r", 1, target.address, 0))
    assert log + await source.line.whole("r", 2) == greedy("llama", prompt(17), WHOLE)
    assert not source.line.events
    target.line.send(Abandon("move"))


async def test_a_gateway_that_comes_back_under_its_name_is_not_taken_for_its_former_self(tmp_path: Path) -> None:
    """Its keys begin anew, perhaps before the worker has noticed that the old line is broken."""
    async with worker(replica(name=NAME), scratch=tmp_path) as one:
        one.line.send(grant())
        await one.line.tokens("r", 1, 30)
        channels = Channels()
        again = Line(channels, one.address, one.line.caught_up)
        again.send(grant(prompt=prompt(9)))
        assert await again.whole("r", 1) == greedy("llama", prompt(9), WHOLE)
        await again.close()
        await channels.close()
        await one.is_idle()


@pytest.mark.parametrize("stage", ["expected", "sending", "stopped", "ready"])
async def test_a_cancel_at_any_stage_frees_both_ends(pair: Pair, stage: str) -> None:
    source, target = pair
    reserved = await under_way(source, target)
    if stage != "expected":
        source.line.send(Send("move", "r", 1, target.address, reserved.blocks_there))
    if stage == "stopped":
        await source.line.event(Stopped)
    if stage == "ready":
        await target.line.event(Ready)
    for one in pair:
        one.line.send(Cancel("r", 1))
        one.line.send(Abandon("move"))


async def test_a_gateway_whose_line_breaks_leaves_nothing_of_its_moves(tmp_path: Path) -> None:
    async with between(replica(name=NAME), replica(name=NAME), tmp_path) as (source, target):
        source.line.send(grant())
        await source.line.tokens("r", 1, 30)
        await copied(source, target, grant())
        for one in (source, target):
            ended = asyncio.Event()  # its own: the source may say twice that it has less to do
            one.relay.on_load = ended.set
            await one.line.close()
            async with asyncio.timeout(30.0):
                await ended.wait()


async def test_what_nobody_speaks_of_any_more_is_freed_and_said(tmp_path: Path) -> None:
    limits = MoveLimits(lease_s=0.2)
    async with worker(replica(name=NAME), scratch=tmp_path, limits=limits) as target:
        target.line.send(Expect("move", grant(), MoveKind.KV))
        assert (await target.line.event(MoveFailed)).reason == "LEASE_LAPSED"
        await target.is_idle()


async def test_there_is_no_room_where_all_slots_are_taken(tmp_path: Path) -> None:
    full = replica(name=NAME, limits=Limits(running=1))
    async with worker(full, scratch=tmp_path) as target:
        target.line.send(Expect("first", grant(), MoveKind.KV))
        await target.line.event(Reserved, "first")
        target.line.send(Expect("second", grant("s"), MoveKind.KV))
        assert (await target.line.event(MoveFailed, "second")).reason == "NO_ROOM"
        target.line.send(Abandon("first"))
        target.line.send(Expect("third", grant("t"), MoveKind.KV))
        await target.line.event(Reserved, "third")


async def test_kv_of_another_kind_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with between(replica(name=NAME), replica("qwen2", name=NAME), tmp_path) as (source, target):
        reserved = await under_way(source, target)
        source.line.send(Send("move", "r", 1, target.address, reserved.blocks_there))
        assert (await target.line.event(MoveFailed)).reason == "LAYOUT_MISMATCH"
        assert (await source.line.event(MoveFailed)).reason == "LAYOUT_MISMATCH"
        await stays(source)


def lie(**changes: object) -> Blocks:
    """Two whole blocks in both layers, but for the changes."""
    data = (memoryview(bytes(2 * BLOCK_BYTES)),)
    return replace(Blocks(0, 2, 0, 2, data, checksum(data)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lie(checksum=1), "CORRUPT"),
        (lie(blocks=3), "BAD_STREAM"),
        (lie(blocks=0), "BAD_STREAM"),
        (lie(layers=3), "BAD_STREAM"),
        (lie(first_layer=2), "BAD_STREAM"),
        (lie(first_block=2**31), "NO_ROOM"),
        (lie(first_block=22), "NO_ROOM"),
        (Manifest((*prompt(17), 5), 17), "NO_ROOM"),
        (Manifest((9, 9, 9), 2), "BAD_STREAM"),
        (StateTensor("/a", "float32", (1,), 0, memoryview(bytes(4)), 0), "BAD_STREAM"),
        (Opening("move", b""), "BAD_STREAM"),
        (None, SOURCE_ENDED),
    ],
)
async def test_what_a_peer_makes_up_is_not_written(
    tmp_path: Path, part: Blocks | Manifest | StateTensor | Opening | None, reason: str
) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        target.line.send(Expect("move", grant(), MoveKind.KV))
        await target.line.event(Reserved)
        layout = target.engine.ask_replica(NAME, lambda one: one.prefix_root)  # type: ignore[attr-defined]
        async with sending(target.address, Opening("move", await asyncio.wrap_future(layout)), FLOW) as stream:
            with pytest.raises(MeshError) as refused:
                await told(stream, part)
        assert refused.value.reason in {reason, LOST}
        assert (await target.line.event(MoveFailed)).reason == reason
        await target.is_idle()


async def told(stream: Sending, part: Blocks | Manifest | StateTensor | Opening | None) -> None:
    """Says it, and waits for the answer. None: it was all."""
    match part:
        case None:
            await stream._call.done_writing()
            await stream.finish(Manifest((), 0))
        case Manifest():
            await stream.finish(part)
        case Opening():
            await stream.open(part)
            await stream.finish(Manifest((), 0))
        case _:
            await stream.send(part)
            await stream.written()


async def test_a_stream_for_a_move_that_is_not_expected_is_refused(tmp_path: Path) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        with pytest.raises(NotFound) as refused:
            await sending(target.address, Opening("nobody's", b""), FLOW).__aenter__()
        assert refused.value.reason == "MOVE_OVER"


class Glutton(WorkerServiceServicer):
    """Takes what it is sent, and says of nothing that it is written; what it is sent over a pipe it does not take."""

    def __init__(self, pipe: pb.Pipe | None) -> None:
        self.taken_bytes, self._pipe = 0, pipe

    async def Receive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ReceiveRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ReceiveResponse]:
        """Agrees first."""
        yield pb.ReceiveResponse(pipe=self._pipe)
        async for request in request_iterator:
            self.taken_bytes += len(request.blocks.data)


@pytest.mark.parametrize("piped", [False, True], ids=["messages", "pipe"])
async def test_a_slow_target_holds_up_neither_the_source_nor_its_memory(tmp_path: Path, piped: bool) -> None:
    """What it does not write stays in the pool: no more than a window's bytes have left when it is given up."""
    wide = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 2048}
    module = body("llama", **wide)
    spec = probe_kv(module, BLOCK_TOKENS)
    model = PackedReplica(NAME, "wide", module, 128 * spec.block_bytes, spec=spec)
    listener = socket.create_server(("127.0.0.1", 0))
    pipe = pb.Pipe(port=listener.getsockname()[1], token=bytes(TOKEN_BYTES)) if piped else None
    server, target = aio.server(), Glutton(pipe)
    add_WorkerServiceServicer_to_server(target, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    limits = MoveLimits(lease_s=2.0, window_bytes=2 << 20)  # a window's bytes have left by then
    async with worker(model, scratch=tmp_path, limits=limits) as source:
        source.line.send(grant(prompt=prompt(400), max_tokens=600))  # they outlast the patience with the target
        await source.line.tokens("r", 1, 1)
        source.line.send(Send("move", "r", 1, f"127.0.0.1:{port}", 0))
        assert (await source.line.event(MoveFailed)).reason == "TARGET_SILENT"
        if not piped:
            assert 1 << 20 < target.taken_bytes <= 2 << 20 < 400 // BLOCK_TOKENS * spec.block_bytes
        assert not [event for event in source.line.events if isinstance(event, Stopped)]
        assert len(await source.line.whole("r", 1)) == 600
        await source.is_idle()
    await server.stop(0)
    listener.close()
