"""A model is updated and rolled back under a stream of requests: each is answered, and each by one version."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.gateway_records import SamplingWishes
from mesh.errors import Conflict, Unsuitable
from mesh.facts import Tier
from mesh.requests import Phase, StartKind
from tests.e2e.asking import PATIENCE_S, Answer, ask, begun, deploy, generate_ids, until_model, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library, prompt_ids
from tests.e2e.memory import bytes_read

OLD, NEW, TUNED = "llama", "llama@2", "llama+"
KV_BYTES = 4 << 20
ONE, BOTH = 8 << 20, 14 << 20  # bytes of a worker: a replica takes its KV and 1 to 2 MB
PROMPT, TOKENS, MANY = prompt_ids(37), 24, 400
WISHES = SamplingWishes(temperature=0.0, max_tokens=TOKENS)
CLIENTS = 4
SMALL_FILES = 100_000  # bytes: configs; of a checkpoint there are a million


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[BOTH, ONE], ids=["room for both", "for one"])
async def lone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, library: Library
) -> AsyncIterator[Running]:
    """A cluster with one worker."""
    memory = {"WHIMBREL_KV_BYTES": str(KV_BYTES), "WHIMBREL_MEMORY_BYTES": str(request.param)}
    options = ClusterOptions(
        tmp_path_factory.mktemp("lone"), workers=1, settings=SETTINGS, settings_of={"worker": memory}
    )
    async with running(options, library, (OLD, NEW, TUNED)) as cluster:
        yield cluster


class Stream:
    """Clients that ask without a pause, and what they were told."""

    def __init__(self, lone: Running, model: str) -> None:
        self._lone, self._model = lone, model
        self.answers: list[Answer] = []
        self._more = asyncio.Event()
        self._ended = False

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator["Stream"]:
        """Runs until the block ends; an error of any client ends the block."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask())
            yield self
            self._ended = True

    async def _ask(self) -> None:
        while not self._ended:
            self.answers.append(await whole(generate_ids(self._lone.address, self._model, PROMPT, WISHES)))
            self._more.set()

    async def until_answered_by(self, digest: str, times: int = 2 * CLIENTS) -> None:
        """Returns when the newest answers are all by one version."""
        async with asyncio.timeout(PATIENCE_S):
            while [answer.finished.checkpoint for answer in self.answers[-times:]] != [digest] * times:
                self._more.clear()
                await self._more.wait()


def assert_each_by_one_version(lone: Running, answers: Sequence[Answer]) -> None:
    """The tokens are those that its own version gives, from first to last."""
    for answer in answers:
        name = {lone.library.digest(name): name for name in (OLD, NEW, TUNED)}[answer.finished.checkpoint]
        assert answer.started.checkpoint == answer.finished.checkpoint
        assert answer.token_ids == lone.library.reference(name, PROMPT, TOKENS)


async def test_a_stream_of_requests_goes_through_an_update_and_a_rollback_without_losing_one(lone: Running) -> None:
    old, new = lone.library.digest(OLD), lone.library.digest(NEW)
    assert lone.library.reference(OLD, PROMPT, TOKENS) != lone.library.reference(NEW, PROMPT, TOKENS)
    await deploy(lone.client, "stream", checkpoint=old)
    async with Stream(lone, "stream").flowing() as stream:
        await stream.until_answered_by(old)
        cold = len(stream.answers)
        updated = await lone.client.update("stream", checkpoint=new)
        assert (updated.checkpoint.digest, updated.previous_checkpoint) == (new, old)
        await stream.until_answered_by(new)
        back = await lone.client.rollback("stream", updated.etag)
        assert (back.checkpoint.digest, back.previous_checkpoint) == (old, new)
        await stream.until_answered_by(old)
    assert_each_by_one_version(lone, stream.answers)
    waited = any(Phase.LOADING in answer.phases for answer in stream.answers[cold:])
    assert waited is not has_room_for_both(lone)
    settled = await until_model(lone.client, "stream", lambda model: len(model.replicas) == 1)
    assert settled.replicas[0].checkpoint == old
    await lone.client.delete("stream")


async def test_what_runs_on_the_former_version_finishes_there(lone: Running) -> None:
    old, new = lone.library.digest(OLD), lone.library.digest(NEW)
    await deploy(lone.client, "long", checkpoint=old)
    wishes = SamplingWishes(temperature=0.0, max_tokens=MANY, ignore_eos=True)
    alone = await whole(generate_ids(lone.address, "long", PROMPT, wishes))
    events = generate_ids(lone.address, "long", PROMPT, wishes)
    started = await begun(events)
    await lone.client.update("long", checkpoint=new)
    after, rest = await asyncio.gather(until_answered_by(lone, "long", new), whole(events))
    assert started.checkpoint == rest.finished.checkpoint == old
    assert rest.finished.completion_tokens == MANY
    assert rest.token_ids == alone.token_ids[-len(rest.token_ids) :]
    assert_each_by_one_version(lone, [after])
    await lone.client.delete("long")


async def test_the_former_version_stays_in_memory_so_that_a_rollback_reads_no_disk(lone: Running) -> None:
    old, new = lone.library.digest(OLD), lone.library.digest(NEW)
    await deploy(lone.client, "back", checkpoint=old)
    await ask(lone.client, "back")
    await lone.client.update("back", checkpoint=new)
    await until_answered_by(lone, "back", new)
    relieved = await until_model(lone.client, "back", lambda model: len(model.replicas) == 1)
    assert relieved.replicas[0].checkpoint == new
    before = bytes_read(lone.cluster.process("store-1").pid)
    assert (await lone.client.rollback("back")).nearest_tier is Tier.DRAM
    if not has_room_for_both(lone):
        answer = await ask(lone.client, "back")
        assert (answer.finished.checkpoint, answer.started.start_kind) == (old, StartKind.DRAM)
    answer = await until_answered_by(lone, "back", old)
    assert bytes_read(lone.cluster.process("store-1").pid) - before < SMALL_FILES
    assert_each_by_one_version(lone, [answer])
    await lone.client.delete("back")


async def test_an_update_reads_from_disk_only_the_units_that_have_changed(lone: Running) -> None:
    old, tuned = lone.library.digest(OLD), lone.library.digest(TUNED)
    await deploy(lone.client, "tuned", checkpoint=old)
    await ask(lone.client, "tuned")
    before = bytes_read(lone.cluster.process("store-1").pid)
    model = await lone.client.update("tuned", checkpoint=tuned)
    answer = await until_answered_by(lone, "tuned", tuned)
    read = bytes_read(lone.cluster.process("store-1").pid) - before
    assert read < model.checkpoint.bytes / 4
    assert_each_by_one_version(lone, [answer])
    await lone.client.delete("tuned")


async def test_a_rollback_needs_something_to_go_back_to_and_nobody_to_write_in_between(lone: Running) -> None:
    old, new = lone.library.digest(OLD), lone.library.digest(NEW)
    first = await deploy(lone.client, "fresh", checkpoint=old)
    with pytest.raises(Unsuitable) as refused:
        await lone.client.rollback("fresh")
    assert refused.value.reason == "NO_PREVIOUS"
    updated = await lone.client.update("fresh", checkpoint=new)
    with pytest.raises(Conflict):
        await lone.client.rollback("fresh", first.etag)
    same = await lone.client.update("fresh", checkpoint=new)
    assert same.previous_checkpoint == updated.previous_checkpoint == old
    await lone.client.delete("fresh")


def has_room_for_both(lone: Running) -> bool:
    """Whether the worker can hold two versions."""
    return lone.cluster.process("worker-1").program.settings["WHIMBREL_MEMORY_BYTES"] == str(BOTH)


async def until_answered_by(lone: Running, model: str, digest: str) -> Answer:
    """Asks one after the other until the version answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await whole(generate_ids(lone.address, model, PROMPT, WISHES))
            if answer.finished.checkpoint == digest:
                return answer
