"""Workers killed and frozen, gateways killed, amid answers of every kind: clients read what they read without that."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, Delta, SamplingWishes, Started
from mesh.facts import NumericsLevel
from mesh.requests import Guide, GuideKind, MoveKind, TokenLogprob
from tests.e2e.asking import PROMPT, Answer, ask, deploy, is_idle, replica_status, until, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library

GREEDY = SamplingWishes(temperature=0.0, max_tokens=180, ignore_eos=True)
SEEDED = replace(GREEDY, temperature=1.0, seed=11)
ANSWERS_S = 300.0
BEGUN = 5  # tokens of each answer when its worker goes


@dataclass(frozen=True, slots=True)
class Case:
    """One request."""

    wishes: SamplingWishes
    answers: int = 1


CASES: Mapping[str, Case] = {
    "greedy": Case(GREEDY),
    "seeded": Case(SEEDED),
    "penalties": Case(
        replace(GREEDY, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4, temperature=0.8, seed=3)
    ),
    "logprobs": Case(replace(SEEDED, seed=5, top_logprobs=3)),
    "guided": Case(replace(SEEDED, seed=7, guide=Guide(GuideKind.REGEX, "([a-z]{3} ){60}"))),
    "several": Case(replace(SEEDED, seed=20), answers=3),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """A cluster of two workers and two gateways, each test of which leaves all running."""
    options = ClusterOptions(tmp_path_factory.mktemp("resume"), gateways=2, settings=SETTINGS)
    async with running(options, library, ("llama", "mamba2")) as cluster:
        yield cluster


class Watch:
    """Sees when all of several requests' answers have begun, and at which worker."""

    def __init__(self, answers: int) -> None:
        self._missing = answers
        self.worker_id = ""
        self.all_begun = asyncio.Event()

    async def over(self, events: AsyncGenerator[AnswerEvent]) -> AsyncGenerator[AnswerEvent]:
        """The events, as they come."""
        async with aclosing(events):
            async for event in events:
                self._see(event)
                yield event

    def _see(self, event: AnswerEvent) -> None:
        if isinstance(event, Started):
            self.worker_id = event.worker_id
        if isinstance(event, Delta) and event.seq < BEGUN <= event.seq + len(event.token_ids):
            self._missing -= 1
            if not self._missing:
                self.all_begun.set()


async def answers(client: GatewayClient, model: str, cases: Mapping[str, Case], watch: Watch) -> dict[str, Answer]:
    """All at once, each to its end."""
    asked = (
        whole(watch.over(client.generate(model, PROMPT, case.wishes, answers=case.answers, within_s=ANSWERS_S)))
        for case in cases.values()
    )
    return dict(zip(cases, await asyncio.gather(*asked), strict=True))


def count(cases: Mapping[str, Case]) -> int:
    """Answers in all."""
    return sum(case.answers for case in cases.values())


def likely(answer: Answer) -> list[TokenLogprob]:
    """How likely each token was."""
    return [one for delta in answer.deltas for one in delta.logprobs]


async def with_stops(client: GatewayClient, model: str, cases: Mapping[str, Case]) -> Mapping[str, Case]:
    """The cases, and one with a stop text that comes late in its answer."""
    seeded = cases["seeded"].wishes
    text = (await ask(client, model, seeded)).text
    late = next(text[n : n + 6] for n in range(len(text) * 2 // 3, len(text)) if text.index(text[n : n + 6]) == n)
    return {**cases, "stop text": Case(replace(seeded, stop=("never that", late)))}


def check(found: Mapping[str, Answer], wanted: Mapping[str, Answer]) -> None:
    """The same streams."""
    for name, answer in found.items():
        end, other = answer.finished, wanted[name]
        assert end.answers == other.finished.answers, name
        for index in range(len(end.answers)):
            one, same = answer.of(index), other.of(index)
            assert (one.token_ids, one.text) == (same.token_ids, same.text), name
            assert likely(one) == likely(same), name
            lengths = [len(delta.token_ids) for delta in one.deltas]
            assert [delta.seq for delta in one.deltas] == [sum(lengths[:n]) for n in range(len(lengths))], name


def check_moves(found: Mapping[str, Answer], lost: str) -> None:
    """Each end says that its answers went on elsewhere."""
    for name, answer in found.items():
        end = answer.finished
        assert sorted(move.index for move in end.moves) == list(range(len(end.answers))), name
        ways = {(move.from_worker_id, move.kind, move.reason) for move in end.moves}
        assert ways == {(lost, MoveKind.REBUILT, "worker lost")}
        assert all(move.exact and move.tokens >= BEGUN and move.gap_s > 0 for move in end.moves), name
        assert end.worker_id != lost


@pytest.mark.parametrize(
    ("checkpoint", "level"),
    [
        ("llama", NumericsLevel.PATH_INVARIANT),
        pytest.param("llama", NumericsLevel.BATCH_INVARIANT, marks=pytest.mark.slow),
        pytest.param("mamba2", NumericsLevel.BATCH_INVARIANT, marks=pytest.mark.slow),
    ],
)
async def test_answers_of_every_kind_read_whole_when_their_worker_is_killed(
    mesh: Running, checkpoint: str, level: NumericsLevel
) -> None:
    name = f"{checkpoint}-{level}".replace("_", "-")
    cases, wanted = await unbroken(mesh, name, checkpoint, level)
    watch = Watch(count(cases))
    asking = asyncio.create_task(answers(mesh.client, name, cases, watch))
    await watch.all_begun.wait()
    await mesh.cluster.kill(watch.worker_id)
    found = await asking
    check(found, wanted)
    check_moves(found, watch.worker_id)
    await until(lambda: replica_status(mesh.cluster, found["greedy"].finished.worker_id, name), is_idle)
    await mesh.cluster.restart(watch.worker_id)


async def unbroken(
    mesh: Running, name: str, checkpoint: str, level: NumericsLevel
) -> tuple[Mapping[str, Case], Mapping[str, Answer]]:
    """The requests for a new model, and their answers when nothing happens."""
    await deploy(mesh.client, name, checkpoint=mesh.library.digest(checkpoint), numerics=level)
    cases = await with_stops(mesh.client, name, CASES)
    return cases, await answers(mesh.client, name, cases, Watch(count(cases)))


@pytest.mark.slow
async def test_answers_read_whole_when_their_worker_stands_still_and_it_works_again_when_it_goes_on(
    mesh: Running,
) -> None:
    cases, wanted = await unbroken(mesh, "frozen", "llama", NumericsLevel.BATCH_INVARIANT)
    watch = Watch(count(cases))
    asking = asyncio.create_task(answers(mesh.client, "frozen", cases, watch))
    await watch.all_begun.wait()
    frozen = mesh.cluster.process(watch.worker_id)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        found = await asking
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    check(found, wanted)
    check_moves(found, watch.worker_id)
    await until(lambda: replica_status(mesh.cluster, watch.worker_id, "frozen"), is_idle)


@pytest.mark.slow
async def test_answers_of_every_kind_go_on_at_another_gateway_when_theirs_is_killed(mesh: Running) -> None:
    cases, wanted = await unbroken(mesh, "kept", "llama", NumericsLevel.PATH_INVARIANT)
    watch = Watch(count(cases))
    async with AsyncExitStack() as stack:
        here, *there = [await stack.enter_async_context(connect(one)) for one in mesh.cluster.gateway_addresses]
        client = GatewayClient(here, mesh.address, elsewhere=there)
        asking = asyncio.create_task(answers(client, "kept", cases, watch))
        await watch.all_begun.wait()
        await mesh.cluster.kill("gateway-1")
        found = await asking
    check(found, wanted)
    assert all(not answer.finished.moves for answer in found.values())  # no worker was lost
    await until(lambda: replica_status(mesh.cluster, watch.worker_id, "kept"), is_idle)
    await mesh.cluster.restart("gateway-1")
