"""Processes that are killed, stopped and started again, one after the other: what clients see, and what comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from cli.cluster import ClusterOptions
from mesh.child import end
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, Change, Delta, ModelState, SamplingWishes, Started
from mesh.errors import DataLoss, Expired
from mesh.facts import NumericsLevel, Tier
from mesh.requests import Phase, Progress, StartKind
from mesh.state.keys import EVENTS_KEPT, Keys
from tests.cli.conftest import Whimbrel
from tests.e2e.asking import (
    PROMPT,
    SHORT,
    Answer,
    answering,
    ask,
    deploy,
    is_idle,
    replica_status,
    until,
    until_model,
    whole,
)
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import BIG, Library

KEYS = Keys("default")
SLOW_DISK = {"WHIMBREL_READER_THREADS": "1", "WHIMBREL_CHUNK_BYTES": "4096"}  # BIG takes about a second
SEEDED = SamplingWishes(temperature=1.0, seed=11, max_tokens=8, ignore_eos=True)
COMMAND = [
    "generate",
    "kept",
    PROMPT,
    "--raw",
    "--seed",
    "11",
    "--temperature",
    "1",
    "--max-tokens",
    "150",
    "--ignore-eos",
]
UNTRIMMED = 200  # Redis trims a stream by whole nodes of 100 entries


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stricken(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """A cluster of two workers, each test of which leaves all processes running."""
    options = ClusterOptions(tmp_path_factory.mktemp("stricken"), settings=SETTINGS, settings_of={"store": SLOW_DISK})
    async with running(options, library, ("llama", "qwen2", "gpt2", BIG)) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(stricken: Running) -> AsyncIterator[Running]:
    """The cluster, whole again, with a client that has met no earlier trouble."""
    async with stricken.cluster.client() as client:
        yield Running(stricken.cluster, client, stricken.library)


@pytest_asyncio.fixture(loop_scope="session")
async def redis(mesh: Running) -> AsyncIterator[Redis]:
    """The cluster's state, as an operator looks at it."""
    async with Redis.from_url(mesh.cluster.redis_url, decode_responses=True) as client:
        yield client


async def test_a_killed_workers_client_reads_on_and_its_models_come_back_elsewhere(mesh: Running) -> None:
    await mesh.deployed(BIG, "orphan")
    fences = {member.id: member.fence for member in await mesh.client.cluster()}
    before = await ask(mesh.client, "orphan", SEEDED)
    async with answering(mesh.client, "orphan") as (started, events):
        killed = started.worker_id
        await mesh.cluster.kill(killed)
        await further(events, 50)
        again = await ask(mesh.client, "orphan", SEEDED)
    assert again.started.worker_id != killed
    assert again.token_ids == before.token_ids  # drawn by seed and position alone, whoever draws
    assert again.started.start_kind is StartKind.WARM  # it has been loaded there for the one that went on
    await until_member(mesh.client, killed, there=False)
    assert killed not in {member.id for member in await mesh.client.cluster()}

    await mesh.cluster.restart(killed)
    await until_member(mesh.client, killed, there=True)
    await mesh.deployed("qwen2", "newcomer")
    assert (await ask(mesh.client, "newcomer")).started.worker_id == killed  # it has more memory free
    now = {member.id: member.fence for member in await mesh.client.cluster()}
    assert now.pop(killed) > max(fences.values())
    assert now == {member_id: fence for member_id, fence in fences.items() if member_id != killed}


async def test_a_killed_scheduler_costs_running_answers_nothing_and_waiting_ones_only_time(
    mesh: Running, redis: Redis
) -> None:
    await mesh.deployed(BIG, "steady")
    await mesh.deployed("llama", "asleep")
    async with AsyncExitStack() as stack:
        _, events = await stack.enter_async_context(answering(mesh.client, "steady"))
        former = await redis.hgetall(KEYS.leader)
        await mesh.cluster.kill("scheduler-1")
        await further(events, 20)
        waiting = [
            await stack.enter_async_context(aclosing(mesh.client.generate(model, PROMPT, SHORT, within_s=60)))
            for model in ("steady", "asleep")
        ]
        for request in waiting:
            assert await anext(request) == Progress(Phase.QUEUED)
        await mesh.cluster.restart("scheduler-1")
        warm, cold = await asyncio.gather(*(whole(request) for request in waiting))
        await further(events, 20)
    assert (warm.started.start_kind, cold.started.start_kind) == (StartKind.WARM, StartKind.DISK)
    leader = await redis.hgetall(KEYS.leader)
    assert leader["holder"] == former["holder"] == "scheduler-1"
    assert int(leader["fence"]) > int(former["fence"])


async def test_a_killed_gateways_clients_come_back_to_it_for_the_rest(mesh: Running) -> None:
    digest, level, address = mesh.library.digest(BIG), NumericsLevel.BATCH_INVARIANT, mesh.address
    await deploy(mesh.client, "kept", checkpoint=digest, numerics=level)
    await deploy(mesh.client, "freed", checkpoint=digest, numerics=level, keep_alive_s=0.2)
    wishes = replace(SEEDED, max_tokens=150)
    wanted = {name: await ask(mesh.client, name, wishes) for name in ("kept", "freed")}
    heard: dict[str, list[AnswerEvent]] = {name: [] for name in wanted}
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(mesh.client.generate(name, PROMPT, wishes, within_s=120)))
            for name in wanted
        ]
        command = await Whimbrel(address).start(*COMMAND)
        stack.push_async_callback(end, command, 0.0)
        assert command.stdout
        written = await command.stdout.readexactly(1)
        await asyncio.gather(*map(read_some, streams, heard.values()))
        await mesh.cluster.kill("gateway-1")
        reading = asyncio.gather(*map(read, streams, heard.values()))
        worker_id = next(event.worker_id for event in heard["kept"] if isinstance(event, Started))
        await until(lambda: replica_status(mesh.cluster, worker_id, "kept"), is_idle)  # it was cancelled
        await mesh.cluster.restart("gateway-1")
        await reading
        out, err = await command.communicate()
    assert mesh.address == address
    assert (written + out, err) == (wanted["kept"].text.encode() + b"\n", b"")
    for name, events in heard.items():
        answer = Answer(tuple(events))
        assert (answer.token_ids, answer.text) == (wanted[name].token_ids, wanted[name].text)
        assert answer.finished.completion_tokens == len(answer.token_ids) == 150
    await until_model(mesh.client, "freed", lambda model: not model.replicas)  # no place is held for the dead


async def test_a_killed_store_leaves_replicas_answering_and_serves_cold_loads_when_it_is_back(mesh: Running) -> None:
    await mesh.deployed("llama", "awake")
    await mesh.deployed("qwen2", "later")
    before = await ask(mesh.client, "awake")
    await mesh.cluster.kill("store-1")
    orphaned = await ask(mesh.client, "awake")
    assert orphaned.started.start_kind is StartKind.WARM
    assert orphaned.token_ids == before.token_ids

    await mesh.cluster.restart("store-1")
    await until_model(mesh.client, "later", lambda model: model.nearest_tier is Tier.DISK)
    assert (await ask(mesh.client, "later")).started.start_kind is StartKind.DISK
    assert (await ask(mesh.client, "awake")).token_ids == before.token_ids
    await mesh.client.update("awake", keep_alive_s=0.0)
    await until_model(mesh.client, "awake", lambda model: not model.replicas)
    renewed = await ask(mesh.client, "awake")
    assert (renewed.started.start_kind, renewed.token_ids) == (StartKind.DISK, before.token_ids)


async def test_a_load_that_nobody_waits_for_any_more_is_ended(mesh: Running) -> None:
    """The client's deadline reaches the scheduler, the worker and the store: nothing else would end this load."""
    await mesh.cluster.restart("store-1")  # so that its memory is empty and the load slow
    await mesh.deployed(BIG, "hopeless")
    await until_model(mesh.client, "hopeless", lambda model: model.nearest_tier is Tier.DISK)
    store = mesh.cluster.process("store-1").pid
    request = mesh.client.generate("hopeless", PROMPT, within_s=3.0)
    async with aclosing(request), aclosing(mesh.client.watch(["hopeless"])) as changes:
        assert await anext(request) == Progress(Phase.QUEUED)
        async for change in changes:
            if change.model and change.model.state is ModelState.LOADING:
                break
        os.kill(store, signal.SIGSTOP)
        try:
            with pytest.raises(Expired):
                await whole(request)
            await until_model(mesh.client, "hopeless", lambda model: not model.replicas)
        finally:
            os.kill(store, signal.SIGCONT)
    await until_model(mesh.client, "hopeless", lambda model: model.nearest_tier is Tier.DISK)
    assert (await ask(mesh.client, "hopeless")).started.start_kind is StartKind.DISK


async def test_corrupt_bytes_on_the_disk_are_never_answered_with(mesh: Running) -> None:
    model = await mesh.deployed("gpt2", "rotten")
    part = mesh.store_dir / model.checkpoint.digest / "part-000.bin"
    with part.open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 4]))
    seen: list[AnswerEvent] = []
    async with aclosing(mesh.client.generate("rotten", PROMPT, within_s=60)) as events:
        with pytest.raises(DataLoss) as lost:
            await read(events, seen)
    assert lost.value.reason == "UNITS_MISSING"  # found, set aside, and nobody else has it
    assert all(isinstance(event, Progress) for event in seen)
    await until_model(
        mesh.client, "rotten", lambda model: (model.nearest_tier, model.state) == (Tier.ORIGIN, ModelState.COLD)
    )
    with pytest.raises(DataLoss) as missing:
        await ask(mesh.client, "rotten")
    assert missing.value.reason == "UNITS_MISSING"


async def test_the_stream_of_events_is_capped_and_followed_through_a_flood(mesh: Running, redis: Redis) -> None:
    flood = redis.pipeline(transaction=False)
    for _ in range(EVENTS_KEPT + 2 * UNTRIMMED):
        flood.xadd(KEYS.events, {"kind": "left", "id": "worker/nobody", "fence": "0"})
    await flood.execute()
    assert await redis.xlen(KEYS.events) > EVENTS_KEPT + UNTRIMMED
    await mesh.deployed("llama", "afterwards")
    assert EVENTS_KEPT <= await redis.xlen(KEYS.events) <= EVENTS_KEPT + UNTRIMMED
    assert (await ask(mesh.client, "afterwards")).finished.completion_tokens


async def read_some(events: AsyncGenerator[AnswerEvent], seen: list[AnswerEvent]) -> None:
    """Notes what comes, up to the third token."""
    while sum(len(event.token_ids) for event in seen if isinstance(event, Delta)) < 3:
        seen.append(await anext(events))


async def read(events: AsyncGenerator[AnswerEvent], seen: list[AnswerEvent]) -> None:
    """Notes what comes, as far as it comes."""
    async for event in events:
        seen.append(event)


async def further(events: AsyncGenerator[AnswerEvent], tokens: int) -> None:
    """Reads on for so many tokens; the stream must not end before."""
    seen = 0
    async for event in events:
        seen += len(event.token_ids) if isinstance(event, Delta) else 0
        if seen >= tokens:
            return
    raise AssertionError("the answer ended before its time")


async def until_member(client: GatewayClient, member_id: str, *, there: bool) -> None:
    """Returns when the gateway's watch shows that the process is there, or is not."""
    async with asyncio.timeout(60), aclosing(client.watch_cluster()) as changes:
        present = False
        async for change in changes:
            if change.member and change.member.id == member_id:
                present = change.change is not Change.DELETED
            if change.change is not Change.EXISTING and present is there:
                return
