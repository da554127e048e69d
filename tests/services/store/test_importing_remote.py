"""Import from afar: a store as an operator runs it reads buckets and servers that its settings allow, no others."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.clients.store import StoreClient
from mesh.errors import InvalidRequest, Unreachable, Unsuitable
from mesh.facts import Kind
from tests.bucket import Bucket, bucket
from tests.cluster import process
from tests.hub import Hub, hub
from tests.services.store.serving import Serving, names_in
from tests.services.store.sources import save_llama
from tests.services.store.test_importing import gone, importer_of, run_import
from tests.web import Answer, Asked, Web

PATIENCE_S = 90


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tiny model."""
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that processes of this test find."""
    with bucket() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def the_hub(llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that processes of this test find."""
    with hub() as made:
        made.hold(llama)
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield made


async def test_a_directory_a_bucket_and_a_hub_give_one_checkpoint(
    store: Serving, llama: Path, s3: Bucket, the_hub: Hub
) -> None:
    sources = (s3.put(llama, "team/llama"), f"hf://{the_hub.repository}@main", str(llama))
    digests = {(await run_import(store.client, store.address, source)).digest for source in sources}
    assert len(digests) == 1
    assert verify_checkpoint(store.settings.store_dir / digests.pop()).source == "s3://models/team/llama"


async def test_a_bucket_that_wants_other_keys_is_not_worth_a_retry_and_says_which_to_set(
    store: Serving, llama: Path, s3: Bucket
) -> None:
    source = s3.put(llama, "locked")
    s3.demand_keys()
    with pytest.raises(Unsuitable, match="AWS_ACCESS_KEY_ID") as refused:
        await run_import(store.client, store.address, source)
    assert (refused.value.reason, refused.value.retry_after_s) == ("ORIGIN_REFUSED", None)
    s3.demand_nothing()
    await run_import(store.client, store.address, source)


async def test_a_bucket_that_dies_under_an_import_is_unreachable_and_leaves_nothing_that_counts(
    redis_url: str, client: StoreClient, tmp_path: Path, llama: Path, s3: Bucket
) -> None:
    source = s3.put(llama, "llama")
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path) as store:
        s3.kill()
        with pytest.raises(Unreachable) as refused:
            await asyncio.wait_for(run_import(client, store.address, source), PATIENCE_S)
        assert refused.value.reason == "ORIGIN_UNREACHABLE"
        assert refused.value.retry_after_s
        assert await client.list(store.address) == ()
        s3.restart()
        s3.put(llama, "llama")
        digest = (await run_import(client, store.address, source)).digest
    assert digest in names_in(tmp_path)


async def test_a_server_that_dies_when_tensors_are_read_is_unreachable_and_then_the_import_completes(
    redis_url: str, client: StoreClient, tmp_path: Path, llama: Path
) -> None:
    """The headers come, the tensors do not: every answer breaks off from then on, until the server has recovered."""
    with Web().running() as web:
        address = web.put(llama, "llama")
        seen, header_reads = 0, sum(path.endswith(".safetensors") for path in web.files)

        def twist(asked: Asked, answer: Answer) -> Answer:
            nonlocal seen
            if asked.method == "GET" and asked.path.endswith(".safetensors"):
                seen += 1
                if seen > header_reads:
                    return Answer(503)
            return answer

        web.twist = twist
        settings = {"redis_url": redis_url, "store_dir": tmp_path, "source_urls": web.url}
        async with process(Kind.STORE, **settings) as store:
            with pytest.raises(Unreachable) as refused:
                await asyncio.wait_for(run_import(client, store.address, address), PATIENCE_S)
            assert "status 503" in str(refused.value)
            assert seen > header_reads
            assert await client.list(store.address) == ()
            web.twist = lambda _, answer: answer
            summary = await run_import(client, store.address, address)
            assert [listed.summary for listed in await client.list(store.address)] == [summary]


async def test_an_import_that_is_cancelled_while_its_server_says_nothing_ends(
    redis_url: str, client: StoreClient, tmp_path: Path, llama: Path
) -> None:
    loop, asked, speak = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def twist(request: Asked, answer: Answer) -> Answer:
        if request.path.endswith(".safetensors") and request.method == "GET":
            loop.call_soon_threadsafe(asked.set)
            speak.wait(PATIENCE_S)
        return answer

    with Web().running() as web:
        address, web.twist = web.put(llama, "llama"), twist
        settings = {"redis_url": redis_url, "store_dir": tmp_path, "source_urls": web.url}
        async with process(Kind.STORE, **settings) as store:
            importing = asyncio.create_task(run_import(client, store.address, address))
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            child = importer_of(store)
            importing.cancel()
            await gone(child)
            speak.set()
            assert await client.list(store.address) == ()


async def test_what_the_settings_do_not_allow_is_not_even_asked(
    redis_url: str, client: StoreClient, tmp_path: Path, llama: Path
) -> None:
    with Web().running() as web:
        address = web.put(llama, "llama")
        async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path) as store:
            for source in (address, address.replace("http://", "https://"), "ftp://host/x"):
                with pytest.raises(InvalidRequest) as refused:
                    await run_import(client, store.address, source)
                assert refused.value.violations[0].field == "source"
        assert not web.asked
