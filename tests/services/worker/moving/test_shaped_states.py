"""Guided answers, and those of adapters, that move between replicas that run one sequence at a time."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.requests import Guide, GuideKind, MoveKind
from services.worker.loading.loader import Order
from services.worker.naming import replica_name
from tests.services.worker.engine.guided import text_of
from tests.services.worker.engine.lora import Trained
from tests.services.worker.engine.opaque_families import fresh, greedy, own_replica
from tests.services.worker.engine.test_opaque_adapters import TARGETS
from tests.services.worker.engine.tiny import prompt
from tests.services.worker.loading.fake_store import serving
from tests.services.worker.moving.test_whole_states import alone, begun, computed, granted, sent
from tests.services.worker.moving.workers import DIGEST, MODEL, NAME, Worker, grant, worker
from tests.services.worker.test_relay import with_tokenizer

BASE = replica_name("base", DIGEST)
WAYS = {MoveKind.KV: sent, MoveKind.TOKENS: computed}
GUIDE = Guide(GuideKind.REGEX, "([0-9]{3}-){15}")


@pytest.mark.parametrize("kind", WAYS)
async def test_a_guided_answer_keeps_to_its_guide_over_the_move(kind: MoveKind, tmp_path: Path) -> None:
    """Its guide is compiled anew at the target, and stands where its tokens have come to."""
    async with serving(with_tokenizer()) as (_, address):
        order = Order(MODEL, with_tokenizer().digest, address)
        a, b = own_replica("mamba2", NAME), own_replica("mamba2", NAME)
        async with (
            worker(a, scratch=tmp_path, order=order) as source,
            worker(b, scratch=tmp_path, order=order) as there,
        ):
            asked = grant(guide=GUIDE, temperature=1.0, seed=5, max_tokens=60)
            await WAYS[kind](source, there, await begun(source, asked))
            answer = await granted(source, there, asked)
            assert len(text_of(answer)) == 60
            assert answer == await alone(there, asked)


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("family", ["bloom", pytest.param("mamba2", marks=pytest.mark.slow)])
async def test_an_adapters_answer_goes_on_with_the_adapter_beside_its_bases(
    family: str, kind: MoveKind, tmp_path: Path
) -> None:
    """What moves is the state that the adapted model has come to; the base's own answer at the target is its own."""
    one, bases = Trained(fresh(family), 1, TARGETS[family]), [own_replica(family, BASE) for _ in range(2)]
    async with worker(bases[0], scratch=tmp_path) as source, worker(bases[1], scratch=tmp_path) as target:
        for each, base in zip((source, target), bases, strict=True):
            await asyncio.wrap_future(each.engine.add_adapter(BASE, one.on(base, NAME)))
        asked = grant(max_tokens=60)
        await WAYS[kind](source, target, await begun(source, asked))
        found = await granted(source, target, asked)
        assert found == one.greedy(prompt(17), 60)
        assert found != greedy(family, prompt(17), 60)
        assert await of_base(target, 20) == greedy(family, prompt(17), 20)


async def of_base(on: Worker, count: int) -> tuple[int, ...]:
    """An answer of the model that is adapted."""
    on.line.send(replace(grant("base", max_tokens=count), model="base"))
    return await on.line.whole("base", 1)
