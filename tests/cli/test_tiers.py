"""prefetch and evict."""

import asyncio
import signal

from whimbrel.inference.v1 import inference_pb2 as words

from mesh.errors import Unsuitable
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import Fakes


async def test_prefetch_brings_a_model_to_dram_of_whichever_store_unless_told(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("prefetch", "curlew")
    await whimbrel.run("prefetch", "curlew", "--tier", "disk", "--store", "store-2")
    first, second = fakes.gateway.requests
    assert (first.name, first.tier, first.store_id) == ("curlew", words.TIER_DRAM, "")
    assert (second.tier, second.store_id) == (words.TIER_DISK, "store-2")
    assert "to dram of store-1 from disk ..." in ended.err
    assert (ended.code, ended.out) == (0, "curlew is in dram of store-1: 3.0 MiB\n")


async def test_prefetch_shows_a_bar_on_a_terminal(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run_on_terminal("prefetch", "curlew")
    assert "to dram of store-1 from disk" in ended.out
    assert "of 3.0 MiB" in ended.out


async def test_leaving_a_prefetch_cancels_it(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.stalls = True
    process = await whimbrel.start("prefetch", "curlew")
    assert process.stderr
    async with asyncio.timeout(60):
        await process.stderr.readuntil(b"...")
        process.send_signal(signal.SIGINT)
        await fakes.gateway.cancelled.wait()
    await process.communicate()
    assert process.returncode == 128 + signal.SIGINT


async def test_evict_says_what_was_freed(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("evict", "curlew", "--tier", "disk", "--store", "store-1")
    [request] = fakes.gateway.requests
    assert (request.name, request.tier, request.store_id) == ("curlew", words.TIER_DISK, "store-1")
    assert ended.out == "freed 3.0 MiB of disk\n"


async def test_evict_of_what_is_in_use_says_by_whom(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.error = Unsuitable("store-1 has it in use by worker-1 (curlew)", reason="CHECKPOINT_IN_USE")
    ended = await whimbrel.run("evict", "curlew")
    assert (ended.code, ended.out) == (1, "")
    assert "worker-1 (curlew)" in ended.err


async def test_a_tier_that_no_store_has_is_refused(fakes: Fakes, whimbrel: Whimbrel) -> None:
    assert (await whimbrel.run("prefetch", "curlew", "--tier", "device")).code == 2
    assert not fakes.gateway.requests


async def test_a_checkpoint_is_moved_by_its_digest(fakes: Fakes, whimbrel: Whimbrel) -> None:
    digest = "ab" * 32
    ended = await whimbrel.run("prefetch", "--checkpoint", digest)
    await whimbrel.run("evict", "--checkpoint", digest, "--tier", "disk")
    assert [(request.name, request.checkpoint) for request in fakes.gateway.requests] == [("", digest)] * 2
    assert ended.out == f"{digest} is in dram of store-1: 3.0 MiB\n"


async def test_a_model_and_a_checkpoint_at_once_or_neither_is_refused(fakes: Fakes, whimbrel: Whimbrel) -> None:
    for command in ("prefetch", "evict"):
        for arguments in ((), ("curlew", "--checkpoint", "ab" * 32)):
            ended = await whimbrel.run(command, *arguments)
            assert ended.code == 2
            assert "either NAME or --checkpoint DIGEST" in ended.err
    assert not fakes.gateway.requests
