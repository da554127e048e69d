"""Requests that move between two workers on real sockets, driven as a gateway does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.moves import Expect, Ready, Reserved, Send, Stopped
from mesh.requests import Cancel, Grant, MoveKind
from tests.services.worker.engine.tiny import greedy, prompt, replica
from tests.services.worker.moving.workers import NAME, Worker, grant, worker


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    async with worker(replica(name=NAME), scratch=tmp_path) as a, worker(replica(name=NAME), scratch=tmp_path) as b:
        yield a, b


async def moved(source: Worker, target: Worker, asked: Grant, after: int) -> tuple[int, ...]:
    """Grants it to the source, moves it once `after` tokens have come, and gives all of its tokens."""
    source.line.send(asked)
    log = await source.line.tokens(asked.key, asked.epoch, after)
    stopped = await copied(source, target, replace(asked, log=log))
    log = source.line.of(asked.key, asked.epoch)
    assert len(log) == stopped.tokens
    owned = replace(asked, epoch=asked.epoch + 1, log=log, move_id="move")
    target.line.send(owned)
    await target.line.tokens(asked.key, owned.epoch, 1)
    source.line.send(Cancel(asked.key, asked.epoch))
    return log + await target.line.whole(asked.key, owned.epoch)


async def copied(source: Worker, target: Worker, known: Grant) -> Stopped:
    """Up to where the target is ready."""
    target.line.send(Expect("move", known, MoveKind.KV))
    reserved = await target.line.event(Reserved)
    source.line.send(Send("move", known.key, known.epoch, target.address, reserved.blocks_there))
    await target.line.event(Ready)
    return await source.line.event(Stopped)


async def computed(target: Worker, known: Grant, line: Worker) -> None:
    """Up to where the target has computed all but the newest tokens of what runs on the other one's line."""
    for _ in range(3):
        known = replace(known, log=line.line.of(known.key, known.epoch))
        target.line.send(Expect("move", known, MoveKind.TOKENS))
        while (await target.line.event(Ready)).tokens < len(known.prompt) + len(known.log):
            await target.line.more()


async def test_an_answer_goes_on_elsewhere_token_by_token_as_if_it_had_stayed(pair: tuple[Worker, Worker]) -> None:
    source, target = pair
    assert await moved(source, target, grant(), 60) == greedy("llama", prompt(17), 400)


async def test_an_answer_goes_on_where_its_tokens_were_computed_meanwhile(pair: tuple[Worker, Worker]) -> None:
    source, target = pair
    asked = grant()
    source.line.send(asked)
    await source.line.tokens("r", 1, 40)
    await computed(target, asked, source)
    log = source.line.of("r", 1)
    source.line.send(Cancel("r", 1))
    target.line.send(replace(asked, epoch=2, log=log, move_id="move"))
    assert log + await target.line.whole("r", 2) == greedy("llama", prompt(17), 400)
