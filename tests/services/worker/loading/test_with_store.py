"""Devices and the loader against a real store: its memory, its ring, its stream, and what it holds afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mesh.checkpoint.layout import Manifest
from mesh.errors import NoRoom, Unsuitable
from mesh.facts import CheckpointSummary, Tier
from mesh.requests import LoadProgress
from mesh.state.connection import State
from services.worker.engine.batch import Limits
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams
from services.worker.loading.host import Host
from services.worker.loading.loader import LoadedReplica, Loader, Order
from services.worker.loading.skeletons import Skeletons
from services.worker.settings import Transport
from tests.services.store.made import MB, make
from tests.services.store.serving import Serving, serving
from tests.services.store.sources import save_llama
from tests.services.worker.loading.listener import Listener
from tests.services.worker.loading.twins import TWINS, Twin

MakeTwin = Callable[..., Twin]
PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, 5 * MB + 1))
PROMPT = (3, 1, 4, 1, 5)


@pytest.mark.parametrize("make_twin", TWINS)
@pytest.mark.parametrize(
    ("dram_bytes", "transport"),
    [(64 * MB, Transport.SHARED), (2 * MB, Transport.SHARED), (64 * MB, Transport.STREAM)],
    ids=["mapped", "ring", "stream"],
)
async def test_the_bytes_of_the_files_reach_the_device(
    state: State, tmp_path: Path, make_twin: MakeTwin, dram_bytes: int, transport: Transport
) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    told: list[LoadProgress] = []
    async with serving(state, tmp_path, dram_bytes=dram_bytes) as store:
        twin = make_twin(store.client, transport)
        stat = await store.client.stat(store.address, made.digest)
        async with twin.device.load(store.address, stat, told.append) as weights:
            assert await weights.complete() is Tier.DISK
            assert [part.cpu().numpy().tobytes() for part in weights.parts] == list(made.parts)
    assert told[-1].bytes_done == told[-1].bytes_total


class Full(Listener):
    """Has no room."""

    def manifest(self, manifest: Manifest) -> None:
        raise NoRoom("full", reason="NO_DEVICE_MEMORY")


def loader_for(store: Serving, tmp_path: Path) -> Loader:
    """A loader onto the host."""
    skeletons = Skeletons(2, tmp_path)
    return Loader(store.client, Host(store.client, Transport.SHARED), skeletons, 1 << 20, Limits())


@asynccontextmanager
async def imported(state: State, tmp_path: Path) -> AsyncIterator[tuple[Serving, str]]:
    """A store with a tiny Llama, and its digest."""
    source = save_llama(tmp_path / "source")
    async with serving(state, tmp_path / "store") as store:
        events = [event async for event in store.client.import_checkpoint(store.address, str(source))]
        assert isinstance(events[-1], CheckpointSummary)
        yield store, events[-1].digest


def answer(loaded: LoadedReplica) -> list[int]:
    """Eight greedy tokens."""
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    tokens: list[int] = []
    with torch.inference_mode():
        loaded.replica.add(EngineRequest("r", "m", PROMPT, params))
        while loaded.replica.has_work:
            tokens += [token for step in loaded.replica.step() for token in step.tokens]
    return tokens


async def test_a_loaded_replica_answers_as_transformers_does_and_again_after_a_reload(
    state: State, tmp_path: Path
) -> None:
    async with imported(state, tmp_path) as (store, digest):
        loader, answers, tiers = loader_for(store, tmp_path), [], []
        for _ in range(2):
            async with loader.load(Order("m", digest, store.address), Listener()) as loaded:
                answers.append(await asyncio.to_thread(answer, loaded))
                tiers.append(loaded.tier)
                loaded.replica.unload()
                del loaded
        assert tiers == [Tier.DISK, Tier.DRAM]
        assert await evicted(store, digest)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "source").eval()
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert answers == [expected[0, len(PROMPT) :].tolist()] * 2


async def evicted(store: Serving, digest: str) -> bool:
    """Whether the memory is nobody's any more: the store hears of the end of a stream a moment after its client."""
    async with asyncio.timeout(60):
        while not await _evict(store, digest):
            pass
    return True


async def _evict(store: Serving, digest: str) -> bool:
    try:
        return await store.client.evict(store.address, digest) > 0
    except Unsuitable:  # CHECKPOINT_IN_USE
        return False


async def test_memory_is_booked_before_a_byte_is_asked_for(state: State, tmp_path: Path) -> None:
    async with imported(state, tmp_path) as (store, digest):
        with pytest.raises(NoRoom):
            async with loader_for(store, tmp_path).load(Order("m", digest, store.address), Full()):
                pass
        assert (await store.client.stat(store.address, digest)).dram_bytes == 0
