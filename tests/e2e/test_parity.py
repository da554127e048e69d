"""What a client gets is what stock transformers computes, and the worker computes it on the store's own memory."""

import asyncio

import pytest
import pytest_asyncio

from mesh.clients.gateway_records import SamplingWishes
from tests.e2e.asking import ask, generate_ids, whole
from tests.e2e.conftest import Shared
from tests.e2e.memory import memory_of
from tests.e2e.sources import BIG, PARITY_KINDS, prompt_ids

TOKENS = 24


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def deployed(shared: Shared) -> Shared:
    """All kinds, imported side by side."""
    await asyncio.gather(*(shared.deployed(kind) for kind in PARITY_KINDS))
    return shared


@pytest.mark.parametrize("kind", PARITY_KINDS)
async def test_greedy_tokens_are_those_of_transformers(deployed: Shared, kind: str) -> None:
    prompt = prompt_ids(37)
    wishes = SamplingWishes(temperature=0.0, max_tokens=TOKENS)
    answer = await whole(generate_ids(deployed.cluster.gateway_address, kind, prompt, wishes))
    assert answer.token_ids == deployed.sources.reference(kind, prompt, TOKENS)


async def test_a_worker_maps_the_stores_memory_and_copies_none_of_it(shared: Shared) -> None:
    pids = {worker_id: shared.cluster.process(worker_id).pid for worker_id in ("worker-1", "worker-2")}
    size_bytes = (await shared.alias(BIG, "mapped")).checkpoint.bytes
    before = {worker_id: memory_of(pid) for worker_id, pid in pids.items()}
    answer = await ask(shared.client, "mapped")
    worker_id = answer.started.worker_id
    was, now = before[worker_id], memory_of(pids[worker_id])
    assert now.mapped_parts - was.mapped_parts >= size_bytes
    assert now.writable_parts == 0
    assert now.private - was.private < size_bytes / 2
