"""What lies on disk: found at start, listed, deleted, and kept apart when it is not what it claims to be."""

import asyncio
from pathlib import Path

import pytest

from mesh.errors import NotFound, Unsuitable
from mesh.facts import CheckpointSummary, Tier
from mesh.state.connection import State
from services.store.catalog import Catalog
from tests.services.store.made import Made, flip, make
from tests.services.store.serving import SEEN_S, Serving, serving


def summary(made: Made) -> CheckpointSummary:
    """What the catalogue should know of it."""
    return CheckpointSummary(
        digest=made.digest,
        bytes=made.size_bytes,
        architecture="MadeForCausalLM",
        dtype="uint8",
        max_context=128,
        units=len(made.manifest.units),
        tensors=len(made.manifest.tensors),
        kv_bytes_per_token=0,
    )


async def test_a_store_finds_what_is_on_its_disk(state: State, tmp_path: Path) -> None:
    made = sorted((make(tmp_path, seed=seed) for seed in range(3)), key=lambda made: made.digest)
    async with serving(state, tmp_path) as store:
        listed = await store.client.list(store.address)
        assert [entry.summary for entry in listed] == [summary(one) for one in made]
        assert {entry.tier for entry in listed} == {Tier.DISK}
        async with store.client.open(store.address, made[1].digest) as opening:
            await opening.complete()
            stat = await store.client.stat(store.address, made[1].digest)
        assert (stat.manifest, stat.tier, stat.summary) == (made[1].manifest, Tier.DRAM, summary(made[1]))
        assert await store.mirror.until(
            lambda _: bool((facts := store.facts()) and facts.tier_of(made[1].digest) is Tier.DRAM), SEEN_S
        )
        facts = store.facts()
        assert facts is not None
        assert facts.dram_capacity_bytes == store.settings.dram_bytes
        assert facts.dram_used_bytes == made[1].size_bytes
        assert facts.disk_used_bytes == sum(one.size_bytes + one.manifest.files[0].bytes for one in made)


async def test_what_is_damaged_at_start_is_kept_apart_and_the_rest_is_served(state: State, tmp_path: Path) -> None:
    good, short, garbled = (make(tmp_path, seed=seed) for seed in range(3))
    (short.directory / "part-000.bin").write_bytes(b"short")
    flip(garbled.directory / "manifest.json", 30)
    async with serving(state, tmp_path) as store:
        assert [entry.summary.digest for entry in await store.client.list(store.address)] == [good.digest]
    assert {path.name for path in (tmp_path / ".quarantine").iterdir()} == {short.digest, garbled.digest}


async def test_leftovers_of_a_killed_import_are_swept(state: State, tmp_path: Path) -> None:
    leftover = tmp_path / ".tmp-abcd"
    leftover.mkdir()
    (leftover / "part-000.bin").write_bytes(b"half")
    async with serving(state, tmp_path):
        assert not leftover.exists()


async def test_deleting_takes_it_off_the_disk_and_out_of_memory(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        async with store.client.open(store.address, made.digest) as opening:
            await opening.opened()
            with pytest.raises(Unsuitable) as refused:
                await store.client.delete(store.address, made.digest)
            assert refused.value.reason == "CHECKPOINT_IN_USE"
            assert made.directory.is_dir()
        await delete_when_free(store, made)
        assert not made.directory.exists()
        assert await store.client.list(store.address) == ()
        assert await store.mirror.until(lambda _: bool((facts := store.facts()) and not facts.checkpoints), SEEN_S)
        with pytest.raises(NotFound):
            await store.client.delete(store.address, made.digest)
    async with serving(state, tmp_path) as store:
        assert await store.client.list(store.address) == ()


async def delete_when_free(store: Serving, made: Made) -> None:
    """The store hears of the end of an Open a moment after its client."""
    while True:
        try:
            return await store.client.delete(store.address, made.digest)
        except Unsuitable:
            continue


async def test_two_stores_never_share_a_directory(tmp_path: Path) -> None:
    async with Catalog(tmp_path, lambda: None):
        with pytest.raises(Unsuitable, match="another store owns"):
            async with Catalog(tmp_path, lambda: None):
                pass
    async with Catalog(tmp_path, lambda: None):
        pass


async def test_a_store_that_is_stopped_while_it_looks_at_its_disk_owns_it_no_longer(tmp_path: Path) -> None:
    starting = asyncio.create_task(Catalog(tmp_path, lambda: None).__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    async with Catalog(tmp_path, lambda: None):
        pass


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unsuitable, match="WHIMBREL_STORE_DIR"):
        async with Catalog(tmp_path / "file" / "store", lambda: None):
            pass
