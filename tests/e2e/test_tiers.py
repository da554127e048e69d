"""An admin moves a model's bytes: prefetched, its first start is a near one; evicted, it comes from disk again."""

from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.clients.gateway_records import ModelState, Prefetching
from mesh.errors import Unsuitable
from mesh.facts import Tier
from mesh.requests import StartKind
from tests.e2e.asking import ask, deploy, until_model
from tests.e2e.conftest import Running


async def test_a_prefetched_model_starts_from_memory_and_an_evicted_one_from_disk(
    shared: Running, tmp_path: Path
) -> None:
    source = shared.library.edition("llama", tmp_path / "moved")  # no other test's model keeps it in memory
    await deploy(shared.client, "moved", source=str(source), keep_alive_s=0.0)
    size_bytes = (await until_model(shared.client, "moved", lambda m: m.nearest_tier is Tier.DISK)).checkpoint.bytes

    async with aclosing(shared.client.prefetch("moved")) as moves:
        progress = [move async for move in moves]
    assert {move.store_id for move in progress} == {"store-1"}
    assert_grows_to(progress, size_bytes)
    await until_model(shared.client, "moved", lambda m: m.nearest_tier is Tier.DRAM)
    assert (await shared.client.get("moved")).state is ModelState.COLD
    assert (await ask(shared.client, "moved")).started.start_kind is StartKind.DRAM

    await until_model(shared.client, "moved", lambda m: not m.replicas)
    assert await evicted(shared) >= size_bytes
    await until_model(shared.client, "moved", lambda m: m.nearest_tier is Tier.DISK)
    assert (await ask(shared.client, "moved")).started.start_kind is StartKind.DISK


async def test_what_a_worker_uses_is_not_evicted_and_the_worker_is_named(shared: Running) -> None:
    await deploy(shared.client, "used", checkpoint=shared.library.digest("qwen2"))
    answer = await ask(shared.client, "used")
    with pytest.raises(Unsuitable) as refused:
        await shared.client.evict("used")
    assert refused.value.reason == "CHECKPOINT_IN_USE"
    assert f"{answer.started.worker_id} (used)" in refused.value.message


async def test_the_only_copy_does_not_leave_its_disk(shared: Running) -> None:
    await deploy(shared.client, "single", checkpoint=shared.library.digest("opt"))
    with pytest.raises(Unsuitable) as refused:
        await shared.client.evict("single", Tier.DISK)
    assert refused.value.reason == "ONLY_COPY"
    assert (await shared.client.get("single")).nearest_tier is not None


async def evicted(shared: Running) -> int:
    """Bytes freed, once no worker uses it any more: what workers map is let go of a moment after they say so."""
    await until_model(shared.client, "moved", lambda m: not m.replicas)
    return await shared.client.evict("moved")


def assert_grows_to(progress: list[Prefetching], size_bytes: int) -> None:
    """From what was there to all of it."""
    done = [move.progress.bytes_done for move in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].progress.bytes_total == size_bytes
