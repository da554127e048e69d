"""Requests that move between two workers whose replicas run one sequence at a time: nothing of the answers shows it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.clients.receive_wire import Opening, StateTensor
from mesh.clients.receiving import sending
from mesh.errors import MeshError
from mesh.facts import NumericsLevel
from mesh.moves import Abandon, Expect, MoveFailed, Ready, Reserved, Send, Stopped
from mesh.requests import Cancel, Grant, MoveKind
from services.worker.engine.batch import Limits
from services.worker.engine.numerics import LEVELS
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.opaque_state import HeldState
from services.worker.moving.limits import USUAL
from tests.services.worker.engine.opaque_families import greedy, own_replica
from tests.services.worker.engine.tiny import prompt
from tests.services.worker.engine.tiny import replica as packed
from tests.services.worker.moving.workers import NAME, Worker, grant, worker

COUNT = 60


@asynccontextmanager
async def pair(
    scratch: Path, family: str = "mamba2", *, there: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers; at the end nothing is left on either. `there` are options of the second one alone."""
    a, b = own_replica(family, NAME, **options), own_replica(family, NAME, **{**options, **(there or {})})
    async with worker(a, scratch=scratch) as one, worker(b, scratch=scratch) as other:
        yield one, other
        for each, replica in ((one, a), (other, b)):
            await each.is_idle()
            await asyncio.wrap_future(each.engine.ask_replica(NAME, _holds_nothing))
            assert not replica.has_work


def _holds_nothing(replica: object) -> None:
    assert isinstance(replica, OpaqueReplica)
    assert not replica._seats.holding


def asked(key: str = "r", **sampling: Any) -> Grant:
    return grant(key, **{"max_tokens": COUNT, **sampling})


async def begun(source: Worker, request: Grant, after: int = 8) -> Grant:
    """Grants it there; it is known with its first tokens, `after` or more."""
    source.line.send(request)
    return replace(request, log=(*request.log, *await source.line.tokens(request.key, request.epoch, after)))


async def sent(source: Worker, target: Worker, known: Grant, move_id: str = "move") -> Ready:
    """Its state is copied; it goes on meanwhile."""
    target.line.send(Expect(move_id, known, MoveKind.KV))
    assert (await target.line.event(Reserved, move_id)).blocks_there == 0
    source.line.send(Send(move_id, known.key, known.epoch, target.address, 0))
    return await target.line.event(Ready, move_id)


async def computed(source: Worker, target: Worker, known: Grant, move_id: str = "move") -> Ready:
    """It is computed at the target; it goes on meanwhile."""
    target.line.send(Expect(move_id, known, MoveKind.TOKENS))
    await target.line.event(Reserved, move_id)
    return await target.line.event(Ready, move_id)


async def granted(source: Worker, target: Worker, request: Grant, move_id: str = "move") -> tuple[int, ...]:
    """The target owns it from where its gateway has come; the whole answer."""
    log = (*request.log, *source.line.of(request.key, request.epoch))
    owned = replace(request, epoch=request.epoch + 1, log=log, move_id=move_id)
    target.line.send(owned)
    await target.line.tokens(owned.key, owned.epoch, 1)
    source.line.send(Cancel(request.key, request.epoch))
    return log + await target.line.whole(owned.key, owned.epoch)


async def alone(on: Worker, request: Grant) -> tuple[int, ...]:
    """The same, without a move."""
    on.line.send(replace(request, key="alone"))
    return await on.line.whole("alone", request.epoch)


@pytest.mark.parametrize("way", [sent, computed])
@pytest.mark.parametrize("family", ["mamba2", "bloom", "lfm2", "qwen3_5_text", "recurrent_gemma", "llama:dynamic"])
async def test_an_answer_goes_on_elsewhere_and_never_stands_still(
    family: str, way: Callable[..., Any], tmp_path: Path
) -> None:
    async with pair(tmp_path, family) as (source, target):
        known = await begun(source, asked())
        ready = await way(source, target, known)
        assert len(known.prompt) + len(known.log) - 1 <= ready.tokens
        assert await granted(source, target, asked()) == greedy(family, prompt(17), COUNT)
        assert not [event for event in source.line.events if isinstance(event, Stopped | MoveFailed)]


@pytest.mark.parametrize("way", [sent, computed])
@pytest.mark.parametrize("level", [NumericsLevel.BATCH_INVARIANT, NumericsLevel.PATH_INVARIANT])
async def test_at_an_invariant_level_what_is_drawn_is_what_would_have_been(
    level: NumericsLevel, way: Callable[..., Any], tmp_path: Path
) -> None:
    drawn = asked(temperature=1.0, seed=9, repetition_penalty=1.3, presence_penalty=0.5, top_logprobs=1)
    async with pair(tmp_path, "lfm2", numerics=LEVELS[level]) as (source, target):
        for each in (source, target):
            await asyncio.wrap_future(each.engine.ask_replica(NAME, lambda replica: replica.prove()))  # type: ignore[attr-defined]
        fingerprints = {each.engine.stats().replicas[NAME].fingerprint for each in (source, target)}
        assert len(fingerprints) == 1
        await way(source, target, await begun(source, drawn))
        answer = await granted(source, target, drawn)
        assert (await target.line.event(Reserved)).fingerprint in fingerprints
        assert answer == await alone(source, drawn)


async def test_of_a_state_only_what_came_meanwhile_is_computed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (source, target):
        request = asked(prompt=prompt(200))
        ready = await sent(source, target, await begun(source, request))
        assert await granted(source, target, request) == greedy("mamba2", prompt(200), COUNT)
        (stats,) = target.engine.stats().replicas.values()
        assert stats.steps <= 200 + COUNT - ready.tokens  # one token a pass
        assert ready.tokens >= 207


async def test_the_source_goes_on_when_it_is_granted_again(tmp_path: Path) -> None:
    """The target was granted and did not speak. What the source has said beyond the log, nobody has counted."""
    async with pair(tmp_path, there={"limits": Limits(running=2)}) as (source, target):
        request = asked(max_tokens=200)
        known = await begun(source, request)
        await sent(source, target, known)
        target.line.send(Cancel("r", 2))
        target.line.send(Abandon("move"))
        source.line.send(replace(known, epoch=3))
        before = source.engine.stats().replicas[NAME].steps
        assert known.log + await source.line.whole("r", 3) == greedy("mamba2", prompt(17), 200)
        assert source.engine.stats().replicas[NAME].steps - before <= 200


async def test_an_answer_moves_there_and_back_again_and_with_it_the_others(tmp_path: Path) -> None:
    async with pair(tmp_path) as (here, there):
        requests = [asked(f"r{i}", prompt=prompt(10 + i), max_tokens=120) for i in range(2)]
        known = [await begun(here, one, after=2) for one in requests]
        await asyncio.gather(*(sent(here, there, one, f"to {one.key}") for one in known))
        second = [replace(one, epoch=2, log=here.line.of(one.key, 1), move_id=f"to {one.key}") for one in requests]
        for one in second:
            there.line.send(one)
            await there.line.tokens(one.key, 2, 2)
            here.line.send(Cancel(one.key, 1))
        logs = [replace(one, log=(*one.log, *there.line.of(one.key, 2))) for one in second]
        await asyncio.gather(*(sent(there, here, one, f"fro {one.key}") for one in logs))
        answers = await asyncio.gather(*(granted(there, here, one, f"fro {one.key}") for one in second))
        assert answers == [greedy("mamba2", one.prompt, 120) for one in requests]


async def test_what_is_abandoned_or_lapses_or_loses_its_line_leaves_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as (source, target):
        known = await begun(source, asked(max_tokens=200))
        for move_id in ("a", "b"):
            await sent(source, target, known, move_id)
            target.line.send(Abandon(move_id))
        await computed(source, target, known, "c")
        target.line.send(Abandon("c"))
        target.line.send(Expect("d", known, MoveKind.KV))
        await target.line.event(Reserved, "d")
        source.line.send(Cancel("r", 1))
        source.line.send(Send("d", "r", 1, target.address, 0))
        assert (await failure(source, "d")).reason == "REQUEST_NOT_HERE"
        await target.line.close()


async def test_a_state_that_would_not_do_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    strict = {"numerics": LEVELS[NumericsLevel.PATH_INVARIANT]}
    async with pair(tmp_path, there=strict) as (source, target):
        known = await begun(source, asked(max_tokens=200))
        target.line.send(Expect("move", known, MoveKind.KV))
        await target.line.event(Reserved)
        source.line.send(Send("move", "r", 1, target.address, 0))
        assert {(await failure(one, "move")).reason for one in (source, target)} == {"LAYOUT_MISMATCH"}
        await computed(source, target, known, "again")
        assert await granted(source, target, asked(max_tokens=200), "again") == greedy("mamba2", prompt(17), 200)


async def test_a_replica_of_blocks_takes_no_state_and_one_of_states_no_more_than_it_has_room_for(
    tmp_path: Path,
) -> None:
    async with (
        worker(own_replica("lfm2", NAME), scratch=tmp_path) as whole,
        worker(packed(name=NAME), scratch=tmp_path) as blocks,
    ):
        known = await begun(whole, asked(max_tokens=200))
        blocks.line.send(Expect("move", known, MoveKind.KV))
        await blocks.line.event(Reserved)
        whole.line.send(Send("move", "r", 1, blocks.address, 0))
        assert (await failure(whole, "move")).reason == "LAYOUT_MISMATCH"
    async with worker(own_replica("lfm2", NAME, limits=Limits(running=1)), scratch=tmp_path) as full:
        full.line.send(Expect("first", known, MoveKind.KV))
        await full.line.event(Reserved, "first")
        full.line.send(Expect("second", known, MoveKind.KV))
        assert (await failure(full, "second")).reason == "NO_ROOM"


async def test_bytes_of_a_peer_that_are_wrong_end_the_move_alone(tmp_path: Path) -> None:
    async with pair(tmp_path) as (source, target):
        known = await begun(source, asked(max_tokens=200))
        target.line.send(Expect("move", known, MoveKind.KV))
        await target.line.event(Reserved)
        state = await asyncio.wrap_future(_mover(source).leave("r#1.1", 0))
        assert isinstance(state, HeldState)
        path, tensor = next(iter(state.tensors.items()))
        wrong = StateTensor(path, "float32", tuple(tensor.shape), 0, memoryview(bytes(4)), 7)
        async with sending(target.address, Opening("move", state.layout), USUAL.flow) as stream:
            await stream.send(wrong)
            with pytest.raises(MeshError, match="checksum"):
                await stream.written()
        assert (await failure(target, "move")).reason == "CORRUPT"
        assert await source.line.whole("r", 1) == greedy("mamba2", prompt(17), 200)


def _mover(one: Worker) -> Any:
    return one.relay.outgoing._mover


async def failure(one: Worker, move_id: str) -> MoveFailed:
    """Waits for it."""

    def there() -> list[MoveFailed]:
        return [event for event in one.line.events if isinstance(event, MoveFailed) and event.move_id == move_id]

    while not there():
        await one.line.more()
    return there()[0]
