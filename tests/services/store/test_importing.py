"""Import: a Hugging Face directory in, a checkpoint out, or an error that says why, and then nothing of it stays."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import pytest

from mesh.checkpoint.staging import SPARE_BYTES, staged_bytes
from mesh.checkpoint.verify import verify_checkpoint
from mesh.clients.store import StoreClient
from mesh.errors import InvalidRequest, NoRoom, NotFound
from mesh.facts import CheckpointSummary, Kind, Tier
from mesh.requests import ImportProgress
from mesh.state.connection import State
from tests.cluster import Started, process
from tests.services.store.made import make
from tests.services.store.serving import SEEN_S, Serving, names_in, serving
from tests.services.store.sources import BAD, save_deep, save_llama
from tests.services.store.test_opening import fetch

SLACK_BYTES = 1 << 20  # file systems round what a file takes


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tiny model."""
    return save_llama(tmp_path_factory.mktemp("llama"))


async def run_import(client: StoreClient, address: str, source: Path | str) -> CheckpointSummary:
    """To its end."""
    async with aclosing(client.import_checkpoint(address, str(source))) as events:
        async for event in events:
            if isinstance(event, CheckpointSummary):
                return event
    raise AssertionError("no checkpoint came")


async def test_a_hugging_face_directory_becomes_a_checkpoint_that_can_be_mapped_at_once(
    store: Serving, llama: Path
) -> None:
    async with aclosing(store.client.import_checkpoint(store.address, str(llama))) as events:
        seen = [event async for event in events]
    summary = seen[-1]
    assert isinstance(summary, CheckpointSummary)
    phases = [event.phase for event in seen if isinstance(event, ImportProgress)]
    assert (phases[0], phases[-1]) == ("reading", "publishing")
    assert (summary.architecture, summary.dtype, summary.max_context) == ("LlamaForCausalLM", "float32", 64)
    assert summary.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4  # layers, k and v, heads, dims, bytes
    assert await store.mirror.until(
        lambda _: bool((facts := store.facts()) and facts.tier_of(summary.digest) is Tier.DISK), SEEN_S
    )
    async with store.client.open(store.address, summary.digest) as opening:
        mapped = await fetch(await opening.complete())
        directory = store.settings.store_dir / summary.digest
        assert bytes(mapped[0]) == (directory / "part-000.bin").read_bytes()
    assert verify_checkpoint(directory).source == str(llama)
    assert names_in(store.settings.store_dir) == {summary.digest}


@pytest.mark.parametrize(("reason", "spoil"), [(reason, spoil) for reason, all_ in BAD.items() for spoil in all_])
async def test_a_bad_directory_is_refused_by_name_and_leaves_nothing(
    store: Serving, tmp_path: Path, reason: str, spoil: Callable[[Path], None]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    spoil(source)
    with pytest.raises(InvalidRequest) as refused:
        await run_import(store.client, store.address, source)
    assert refused.value.reason == reason
    assert refused.value.violations[0].field == "source"
    assert names_in(store.settings.store_dir) == set()
    assert await store.client.list(store.address) == ()


@pytest.mark.parametrize("source", ["", "relative/path", "../up", "a\0b", "/\0"])
async def test_only_an_absolute_path_is_taken(store: Serving, source: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await run_import(store.client, store.address, source)
    assert refused.value.violations[0].field == "source"


async def test_a_path_that_is_not_there_is_not_found(store: Serving, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for source in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(NotFound) as missing:
            await run_import(store.client, store.address, source)
        assert missing.value.reason == "SOURCE_NOT_FOUND"


async def test_a_store_with_source_roots_reads_below_them_alone(state: State, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "models", tmp_path / "secret"
    (allowed / "empty").mkdir(parents=True)
    secret.mkdir()
    (allowed / "link").symlink_to(secret)
    async with serving(state, tmp_path / "store", source_roots=f"{allowed}:{tmp_path / 'more'}") as store:
        for source in (secret, allowed / "link", f"{allowed}/../secret", f"{allowed}2", "/"):
            with pytest.raises(InvalidRequest) as refused:
                await run_import(store.client, store.address, source)
            assert refused.value.reason == "SOURCE_NOT_ALLOWED"
        with pytest.raises(InvalidRequest) as looked_at:
            await run_import(store.client, store.address, allowed / "empty")
        assert looked_at.value.reason == "NOT_A_CHECKPOINT"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes long enough to write for something to happen meanwhile."""
    return save_llama(tmp_path_factory.mktemp("large"), vocabulary=400_000)


async def until_writing(events: AsyncIterator[ImportProgress | CheckpointSummary]) -> None:
    """Returns when the importer writes bytes."""
    async for event in events:
        if isinstance(event, ImportProgress) and event.phase == "writing":
            return
    raise AssertionError("it was not seen to write")


async def gone(pid: int) -> None:
    """Returns when a process has ended."""
    ended, descriptor = asyncio.Event(), os.pidfd_open(pid)
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 60)
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def importer_of(store: Started) -> int:
    """The store's one child that imports."""
    pid = store.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def test_two_that_import_one_source_share_one_child_which_outlives_the_first_to_leave(
    redis_url: str, client: StoreClient, tmp_path: Path, large: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(large)
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path / "store") as store:
        async with aclosing(client.import_checkpoint(store.address, str(link))) as second:
            async with aclosing(client.import_checkpoint(store.address, str(large))) as first:
                await until_writing(first)
                child = importer_of(store)
                assert (await anext(second)).bytes_total  # it begins where the first one is
                assert importer_of(store) == child
            seen = [event async for event in second]
            summary = seen[-1]
            assert isinstance(summary, CheckpointSummary)
        verify_checkpoint(tmp_path / "store" / summary.digest)
        assert names_in(tmp_path / "store") == {summary.digest}


async def test_the_child_of_an_import_ends_with_the_last_who_waits_and_the_next_begins_another(
    redis_url: str, client: StoreClient, tmp_path: Path, large: Path
) -> None:
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path) as store:
        async with (
            aclosing(client.import_checkpoint(store.address, str(large))) as second,
            aclosing(client.import_checkpoint(store.address, str(large))) as first,
        ):
            await until_writing(first)
            child = importer_of(store)
            await anext(second)
        await gone(child)
        assert (await run_import(client, store.address, large)).digest in names_in(tmp_path)


async def test_what_makes_an_import_fail_is_told_to_all_who_wait_for_it(store: Serving, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    BAD["SHARD_MISMATCH"][0](source)
    both = [run_import(store.client, store.address, source) for _ in range(2)]
    failed = await asyncio.gather(*both, return_exceptions=True)
    assert [getattr(error, "reason", error) for error in failed] == ["SHARD_MISMATCH"] * 2


async def test_an_import_that_is_cancelled_or_killed_leaves_nothing(
    redis_url: str, client: StoreClient, tmp_path: Path, large: Path
) -> None:
    settings = {"redis_url": redis_url, "store_dir": tmp_path}
    async with process(Kind.STORE, **settings) as store:
        async with aclosing(client.import_checkpoint(store.address, str(large))) as events:
            await until_writing(events)
            child = importer_of(store)
        await gone(child)
        assert names_in(tmp_path) == set()

        async with aclosing(client.import_checkpoint(store.address, str(large))) as events:
            await until_writing(events)
            child = importer_of(store)
            await store.kill()
        await gone(child)
        assert {name[:5] for name in names_in(tmp_path)} == {".tmp-"}
    async with process(Kind.STORE, **settings) as store:
        assert names_in(tmp_path) == set()
        assert await client.list(store.address) == ()


async def test_an_import_whose_store_is_killed_is_gone_on_with_by_the_next(
    redis_url: str, client: StoreClient, tmp_path: Path
) -> None:
    settings, source = {"redis_url": redis_url, "store_dir": tmp_path / "store"}, save_deep(tmp_path / "deep")
    async with process(Kind.STORE, **settings) as store:
        async with aclosing(client.import_checkpoint(store.address, str(source))) as events:
            async for event in events:
                if event.phase == "writing" and event.bytes_done > event.bytes_total * 0.6:
                    break
            child = importer_of(store)
            await store.kill()
        await gone(child)
    async with process(Kind.STORE, **settings) as store:
        assert await client.list(store.address) == ()
        async with aclosing(client.import_checkpoint(store.address, str(source))) as events:
            seen = [event async for event in events]
        written = [event.bytes_done for event in seen if isinstance(event, ImportProgress) and event.phase == "writing"]
        assert written[0] > 70_000_000
        summary = seen[-1]
        assert isinstance(summary, CheckpointSummary)
        verify_checkpoint(tmp_path / "store" / summary.digest)
        assert names_in(tmp_path / "store") == {summary.digest}


async def test_an_import_that_is_gone_on_with_needs_room_for_the_rest_alone(
    redis_url: str, client: StoreClient, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_deep(tmp_path / "deep")
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path / "store") as store:
        async with aclosing(client.import_checkpoint(store.address, str(source))) as events:
            async for event in events:
                if event.phase == "writing" and event.bytes_done > event.bytes_total * 0.6:
                    break
            child = importer_of(store)
            await store.kill()
        await gone(child)
    rest = event.bytes_total - staged_bytes(tmp_path / "store", str(source))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=rest + SPARE_BYTES + SLACK_BYTES, f_frsize=1))
    async with serving(state, tmp_path / "store") as again:
        summary = await run_import(again.client, again.address, source)
    verify_checkpoint(tmp_path / "store" / summary.digest)


async def test_an_import_makes_room_or_says_that_there_is_none(state: State, tmp_path: Path, llama: Path) -> None:
    made = make(tmp_path / "store", seed=1, part_units=((100_000,),))
    capacity = made.size_bytes + 8192
    async with serving(state, tmp_path / "store", disk_bytes=capacity) as store:
        with pytest.raises(NoRoom) as full:
            await run_import(store.client, store.address, llama)
        assert full.value.reason == "DISK_FULL"
        assert [entry.summary.digest for entry in await store.client.list(store.address)] == [made.digest]
    make(tmp_path / "origin", seed=1, part_units=((100_000,),))
    async with serving(state, tmp_path / "store", disk_bytes=capacity, origins=[str(tmp_path / "origin")]) as store:
        summary = await run_import(store.client, store.address, llama)
        assert await store.mirror.until(
            lambda _: bool((facts := store.facts()) and facts.tier_of(made.digest) is Tier.ORIGIN), SEEN_S
        )
    assert verify_checkpoint(tmp_path / "store" / summary.digest).digest == summary.digest
