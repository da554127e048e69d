"""Logits of answers that move between two workers, byte by byte: as each engine had them, and as one alone has them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.moves import Ready
from mesh.requests import Cancel, Grant, MoveKind
from services.worker.engine.batch import Limits
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.opaque_replica import OpaqueReplica
from services.worker.engine.replica import Replica
from tests.services.worker.engine.opaque_families import own_replica
from tests.services.worker.engine.test_numerics import BATCH, PATH, Recording
from tests.services.worker.engine.tiny import BLOCK_TOKENS, body, prompt
from tests.services.worker.moving.test_moves import copied
from tests.services.worker.moving.test_whole_states import begun, computed, sent
from tests.services.worker.moving.workers import NAME, Worker, grant, worker

Rows = Mapping[int, bytes]  # of each token of an answer, the logits that it was drawn from
COUNT, BEGUN = 32, 8
ASKED = grant(max_tokens=COUNT, temperature=0.9, seed=4, prompt=prompt(30))


def packed(numerics: Numerics) -> Recording:
    """Keeps what it draws from, by request and index."""
    module = body("llama")
    spec = probe_kv(module, BLOCK_TOKENS)
    limits = Limits(batch_tokens=48, draft_tokens=0)
    return Recording(NAME, NAME, module, 128 * spec.block_bytes, spec=spec, limits=limits, numerics=numerics)


def opaque(numerics: Numerics) -> OpaqueReplica:
    """Keeps what it draws from, by all tokens before."""
    made = own_replica("lfm2", NAME, numerics=numerics)
    inner, made.rows = made._runner.run, {}  # type: ignore[attr-defined]

    def run(tokens: list[int], count: int, held: Any) -> Any:
        row, held = inner(tokens, count, held)
        made.rows[tuple(tokens)] = row.numpy().tobytes()  # type: ignore[attr-defined]
        return row, held

    made._runner.run = run  # type: ignore[method-assign, assignment]
    return made


def rows_of(on: Replica, epoch: int, answer: tuple[int, ...]) -> Rows:
    """Of the request `r` under an epoch; of those without a number, whoever asked for them."""
    if isinstance(on, Recording):
        mine = f"r#{epoch}."
        return {index: row for (name, index), row in on.rows.items() if name.startswith(mine)}
    assert isinstance(on, OpaqueReplica)
    rows: Mapping[tuple[int, ...], bytes] = on.rows  # type: ignore[attr-defined]
    before = [(*ASKED.prompt, *answer[:index]) for index in range(len(answer))]
    return {index: rows[tokens] for index, tokens in enumerate(before) if tokens in rows}


async def alone(replica: Replica, scratch: Path) -> tuple[tuple[int, ...], Rows]:
    """The answer of one that stays and has no company, and what it is drawn from."""
    async with worker(replica, scratch=scratch) as one:
        one.line.send(ASKED)
        answer = await one.line.whole("r", 1)
    return answer, rows_of(replica, 1, answer)


async def moved(source: Worker, target: Worker, kind: MoveKind) -> tuple[int, ...]:
    """The answer of one that moves when it has begun, amid others on both workers."""
    for number, each in enumerate((source, target)):
        each.line.send(grant("other", prompt=prompt(11 + number, seed=5), max_tokens=300))
        await each.line.tokens("other", 1, 3)
    known = await begun(source, ASKED, BEGUN)
    await prepared(source, target, known, kind)
    log = source.line.of("r", 1)
    target.line.send(replace(ASKED, epoch=2, log=log, move_id="move"))
    answer = log + await target.line.whole("r", 2)
    for each in (source, target):
        each.line.send(Cancel("other", 1))
    source.line.send(Cancel("r", 1))
    return answer


async def prepared(source: Worker, target: Worker, known: Grant, kind: MoveKind) -> None:
    """Until it can be granted to the target."""
    if kind is MoveKind.TOKENS:
        assert isinstance(await computed(source, target, known), Ready)
    elif await in_blocks(source):
        await copied(source, target, ASKED)
    else:
        await sent(source, target, known)


async def in_blocks(on: Worker) -> bool:
    """Whether its replica is the packed one."""
    return await asyncio.wrap_future(on.engine.ask_replica(NAME, lambda replica: isinstance(replica, Recording)))


async def shown(make: Any, level: Numerics, kind: MoveKind, scratch: Path) -> tuple[Rows, Rows, Rows]:
    """Of an answer that stays, and of the same one that moves at its source and its target, which have COUNT in all."""
    answer, wanted = await alone(make(level), scratch)
    a, b = make(level), make(level)
    async with worker(a, scratch=scratch) as source, worker(b, scratch=scratch) as target:
        found = await moved(source, target, kind)
    here, there = rows_of(a, 1, found), rows_of(b, 2, found)
    assert len(here) >= BEGUN
    assert len(there) >= COUNT // 4
    assert here.keys() | there.keys() == wanted.keys() == set(range(COUNT))
    assert found == answer or level is FAST
    return wanted, here, there


@pytest.mark.parametrize("kind", [MoveKind.KV, MoveKind.TOKENS])
@pytest.mark.parametrize(("make", "level"), [(packed, BATCH), (packed, PATH), (opaque, BATCH), (opaque, PATH)])
async def test_at_an_invariant_level_every_logit_is_what_it_would_have_been(
    make: Any, level: Numerics, kind: MoveKind, tmp_path: Path
) -> None:
    wanted, *both = await shown(make, level, kind, tmp_path)
    for rows in both:
        assert rows == {index: wanted[index] for index in rows}


async def test_at_the_fast_level_what_is_computed_anew_differs(tmp_path: Path) -> None:
    wanted, _, there = await shown(packed, FAST, MoveKind.TOKENS, tmp_path)
    assert there != {index: wanted[index] for index in there}
