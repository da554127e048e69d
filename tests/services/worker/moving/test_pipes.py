"""Blocks that come over a pipe: what is made up is not written, who does not know the token is not heard, and where no
pipe comes about they come in messages."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mesh.clients.pipe import HEAD, TOKEN_BYTES, Offer, PieceHead, Pipe, connect
from mesh.clients.receive_wire import Opening
from mesh.clients.receiving import Sending, sending
from mesh.errors import MeshError
from mesh.moves import Abandon, Expect, MoveFailed, Reserved
from mesh.requests import MoveKind
from services.worker.engine.batch import Limits
from services.worker.moving.limits import USUAL
from services.worker.moving.pieces import checksum
from tests.services.worker.engine.tiny import greedy, prompt, replica
from tests.services.worker.moving.test_failures import BLOCK_BYTES, FLOW, LOST
from tests.services.worker.moving.test_moves import moved
from tests.services.worker.moving.workers import NAME, Worker, grant, worker

TWO = np.arange(2 * BLOCK_BYTES, dtype=np.uint32).astype(np.uint8)  # two blocks, of both layers
HONEST = PieceHead(0, 2, checksum([TWO.data]))


@dataclass(frozen=True, slots=True)
class Source:
    """A worker's end of a move, in the test's hands."""

    stream: Sending
    pipe: Pipe

    async def say(self, head: PieceHead, data: memoryview = TWO.data) -> None:
        """A piece, and returns when it is written."""
        await self.stream.send_beside(len(data), partial(asyncio.to_thread, self.pipe.send, head, data))
        await self.stream.written()


@asynccontextmanager
async def opened(target: Worker) -> AsyncIterator[tuple[Sending, Offer]]:
    """A stream to a target that expects a request."""
    target.line.send(Expect("move", grant(), MoveKind.KV))
    await target.line.event(Reserved)
    layout = target.engine.ask_replica(NAME, lambda one: one.prefix_root)  # type: ignore[attr-defined]
    async with sending(target.address, Opening("move", await asyncio.wrap_future(layout)), FLOW) as stream:
        assert stream.offer
        yield stream, stream.offer


@asynccontextmanager
async def coming(target: Worker, stream: Sending, offer: Offer) -> AsyncIterator[Source]:
    with closing(await asyncio.to_thread(connect, target.address, offer, 5.0, 30.0)) as pipe:
        yield Source(stream, pipe)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (replace(HONEST, checksum=1), "CORRUPT"),
        (replace(HONEST, blocks=0), "BAD_STREAM"),
        (replace(HONEST, blocks=2**31), "BAD_STREAM"),
        (replace(HONEST, first_block=2**31), "NO_ROOM"),
        (replace(HONEST, first_block=22), "NO_ROOM"),
    ],
)
async def test_what_a_peer_makes_up_is_not_written(tmp_path: Path, head: PieceHead, reason: str) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        with pytest.raises(MeshError) as refused:
            async with opened(target) as stream, coming(target, *stream) as source:
                await source.say(head)
        assert refused.value.reason in {reason, LOST}
        assert (await target.line.event(MoveFailed)).reason == reason
        await target.is_idle()


async def test_pieces_are_written_in_their_places_in_any_order_and_again(tmp_path: Path) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        async with opened(target) as stream, coming(target, *stream) as source:
            for first in (3, 0, 3):  # the fourth and fifth are more than what was reserved
                await source.say(replace(HONEST, first_block=first))
            landing = target.relay.incoming._expected["move"].incoming.landing  # type: ignore[union-attr]
            assert landing.filled == {0, 1, 3, 4}
            there = np.empty_like(TWO)
            landing.beside.read(landing._blocks[3:5], there, None)
            assert np.array_equal(there, TWO)
            target.line.send(Abandon("move"))
        await target.is_idle()


async def test_who_does_not_know_the_token_is_not_heard_and_the_source_is(tmp_path: Path) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        async with opened(target) as (stream, offer):
            with closing(socket.create_connection(("127.0.0.1", offer.port))) as stranger:
                stranger.sendall(bytes(TOKEN_BYTES) + HEAD.pack(0, 2, HONEST.checksum) + TWO.tobytes())
                async with coming(target, stream, offer) as source:
                    await source.say(replace(HONEST, first_block=1))
                assert target.relay.incoming._expected["move"].incoming.landing.filled == {1, 2}  # type: ignore[union-attr]
            target.line.send(Abandon("move"))
        await target.is_idle()


async def test_who_has_connected_and_says_nothing_is_hung_up_on_when_the_stream_ends(tmp_path: Path) -> None:
    async with worker(replica(name=NAME), scratch=tmp_path) as target:
        async with opened(target) as (_, offer):
            silent = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", offer.port))
            target.line.send(Abandon("move"))
        with closing(silent):
            silent.settimeout(20.0)
            assert await asyncio.to_thread(silent.recv, 1) == b""
        await target.is_idle()


@pytest.mark.parametrize("pipe_host", ["", "127.0.0.2"], ids=["not offered", "not reached"])
async def test_without_a_pipe_blocks_come_in_messages(tmp_path: Path, pipe_host: str) -> None:
    slow = replica(name=NAME, limits=Limits(batch_tokens=4))
    limits = replace(USUAL, pipe_host=pipe_host)
    async with (
        worker(replica(name=NAME), scratch=tmp_path) as source,
        worker(slow, scratch=tmp_path, limits=limits) as target,
    ):
        answer = await moved(source, target, grant(prompt=prompt(100), max_tokens=60), 20)
        assert answer == greedy("llama", prompt(100), 60)
        (stats,) = target.engine.stats().replicas.values()
        assert stats.steps == stats.tokens  # nothing was computed again
        await source.is_idle()
        await target.is_idle()
