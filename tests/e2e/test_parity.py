"""What a client gets is what stock transformers computes, and the worker computes it on the store's own memory."""

import pytest

from mesh.clients.gateway_records import SamplingWishes
from mesh.facts import RunnerKind
from tests.e2e.asking import ask, generate_ids, whole
from tests.e2e.conftest import Running
from tests.e2e.library import BIG, KINDS, OPAQUE, prompt_ids
from tests.e2e.memory import memory_of

TOKENS = 24


@pytest.mark.parametrize("kind", KINDS)
async def test_greedy_tokens_are_those_of_transformers(shared: Running, kind: str) -> None:
    await shared.deployed(kind)
    prompt = prompt_ids(37)
    answer = await whole(generate_ids(shared.address, kind, prompt, SamplingWishes(temperature=0.0, max_tokens=TOKENS)))
    assert answer.token_ids == shared.library.reference(kind, prompt, TOKENS)


@pytest.mark.parametrize("kind", ["llama", *OPAQUE])
async def test_what_runs_a_model_is_chosen_and_told(shared: Running, kind: str) -> None:
    runner = RunnerKind.OPAQUE if kind in OPAQUE else RunnerKind.PACKED
    model = await shared.deployed(kind)
    assert model.checkpoint.runner is runner
    await ask(shared.client, kind)
    workers = [member.worker for member in await shared.client.cluster() if member.worker]
    told = [replica.runner for worker in workers for replica in worker.replicas if replica.model == kind]
    assert told == [runner]


async def test_a_worker_maps_the_stores_memory_and_copies_none_of_it(shared: Running) -> None:
    pids = {worker_id: shared.cluster.process(worker_id).pid for worker_id in ("worker-1", "worker-2")}
    size_bytes = (await shared.deployed(BIG, "mapped")).checkpoint.bytes
    before = {worker_id: memory_of(pid) for worker_id, pid in pids.items()}
    answer = await ask(shared.client, "mapped", SamplingWishes(max_tokens=1))  # the next pass begins to pack copies
    worker_id = answer.started.worker_id
    was, now = before[worker_id], memory_of(pids[worker_id])
    assert now.mapped_parts - was.mapped_parts >= size_bytes
    assert now.shared_writable_parts == 0
    assert now.private - was.private < size_bytes / 2
