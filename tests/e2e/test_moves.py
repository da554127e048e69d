"""Answers of every kind that move between two workers and back while they are read: what clients read is what they read
without that."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, Delta, Started
from mesh.errors import NotFound, Unsuitable
from mesh.facts import NumericsLevel, ReplicaState
from mesh.requests import MoveKind
from tests.e2e.asking import PATIENCE_S, PROMPT, Answer, ask, deploy, is_idle, replica_status, until, until_model, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library
from tests.e2e.test_adapters import Tuned
from tests.e2e.test_resume import CASES, Case, Watch, answers, count, likely, with_stops

BEGUN = 5  # tokens of the first answer that begins when it moves
PATH, BATCH = NumericsLevel.PATH_INVARIANT, NumericsLevel.BATCH_INVARIANT
WORKERS = ("worker-1", "worker-2")
LATE = {"FINISHED", "REQUEST_ENDED", "UNKNOWN_REQUEST"}  # the answer was quicker than the wish that it move
LENGTH = 440  # of each answer


@pytest.fixture(scope="module")
def tuned(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """An adapter of llama."""
    return Tuned(library, tmp_path_factory.mktemp("adapter"), 1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, library: Library, tuned: Tuned) -> AsyncIterator[Running]:
    """A cluster of two workers."""
    patient = {"WHIMBREL_MOVE_STOP_S": "30", "WHIMBREL_LEASE_S": "60"}
    options = ClusterOptions(
        tmp_path_factory.mktemp("moves"), settings=SETTINGS | patient | {"WHIMBREL_MOVES": "0"}
    )  # but those that are asked for
    library.put(options.data_dir / "store", ("llama",))
    tuned.put(options.data_dir / "store", library.digest("llama"))
    async with running(options, library, ("mamba2",)) as cluster:
        yield cluster


async def everywhere(mesh: Running, name: str, digest: str, level: NumericsLevel | None) -> str:
    """The name of a model that both workers have."""
    name = f"{name}-{level or 'as-base'}".replace("_", "-")
    if name not in {model.name for model in await mesh.client.list()}:
        await deploy(mesh.client, name, checkpoint=digest, numerics=level)
        await mesh.client.update(name, min_replicas=2)
    ready = ReplicaState.READY
    await until_model(mesh.client, name, lambda model: sum(one.state is ready for one in model.replicas) == 2)
    return name


def longer(case: Case) -> Case:
    """The same for so long that there is time to move twice."""
    guide = case.wishes.guide and replace(case.wishes.guide, text="([a-z]{3} ){150}")
    return replace(case, wishes=replace(case.wishes, max_tokens=LENGTH, guide=guide))


class Mover:
    """Moves a request when its first answer has begun, as often as there are kinds, while it is read."""

    def __init__(self, client: GatewayClient, request_id: str, kinds: Sequence[MoveKind], begun: int) -> None:
        self._client, self._request_id, self._kinds, self._begun = client, request_id, kinds, begun

    async def over(self, events: AsyncGenerator[AnswerEvent]) -> AsyncGenerator[AnswerEvent]:
        """The events, as they come."""
        at, moving = "", False
        async with asyncio.TaskGroup() as group, aclosing(events):
            async for event in events:
                if isinstance(event, Started):
                    at = event.worker_id
                if isinstance(event, Delta) and not moving and event.seq + len(event.token_ids) >= self._begun:
                    moving = True
                    group.create_task(self._move(at))
                yield event

    async def _move(self, at: str) -> None:
        for kind in self._kinds:
            to = WORKERS[at == WORKERS[0]]
            try:
                moved = await self._client.move(self._request_id, to_worker_id=to, kind=kind)
            except (NotFound, Unsuitable) as error:
                if error.reason in LATE:
                    return
                raise
            assert (moved.from_worker_id, moved.to_worker_id, moved.kind, moved.exact) == (at, to, kind, True)
            at = to


async def check(
    mesh: Running, model: str, cases: Mapping[str, Case], kinds: Sequence[MoveKind], begun: int = BEGUN
) -> None:
    """All cases at once, unmoved and then each moved, say the same; in the end both workers are empty."""
    wanted = await answers(mesh.client, model, cases, Watch(count(cases)))

    def asked(name: str, case: Case) -> AsyncGenerator[AnswerEvent]:
        request_id = f"{model}/{name}"
        events = mesh.client.generate(
            model, PROMPT, case.wishes, answers=case.answers, request_id=request_id, within_s=PATIENCE_S
        )
        return Mover(mesh.client, request_id, kinds, begun).over(events)

    found = await asyncio.gather(*(whole(asked(name, case)) for name, case in cases.items()))
    for name, answer in zip(cases, found, strict=True):
        same(answer, wanted[name])
        moves = [move for move in answer.finished.moves if move.index == 0]
        assert [move.kind for move in moves] == list(kinds[: len(moves)]), name
        assert all(move.exact and move.reason == "asked" and move.gap_s > 0 for move in moves), name
        assert answer.finished.worker_id == (moves[-1].to_worker_id if moves else answer.started.worker_id)
    assert {move.kind for answer in found for move in answer.finished.moves} == set(kinds)
    for worker_id in WORKERS:
        await until(lambda: replica_status(mesh.cluster, worker_id, model), is_idle)  # noqa: B023


def same(found: Answer, wanted: Answer) -> None:
    """Token by token, with their likelihoods, texts and ends."""
    for index in range(len(wanted.finished.answers)):
        one, other = found.of(index), wanted.of(index)
        assert (one.token_ids, one.text) == (other.token_ids, other.text)
        assert likely(one) == likely(other)
        assert [delta.seq for delta in one.deltas] == [
            sum(len(earlier.token_ids) for earlier in one.deltas[:n]) for n in range(len(one.deltas))
        ]
    assert found.finished.answers == wanted.finished.answers


@pytest.mark.parametrize(
    ("checkpoint", "level", "kinds"),
    [
        ("llama", PATH, (MoveKind.KV, MoveKind.TOKENS)),
        pytest.param("llama", BATCH, (MoveKind.TOKENS, MoveKind.KV), marks=pytest.mark.slow),
        pytest.param("mamba2", BATCH, (MoveKind.KV,), marks=pytest.mark.slow),
    ],
)
async def test_answers_of_every_kind_read_whole_when_they_move(
    mesh: Running, checkpoint: str, level: NumericsLevel, kinds: Sequence[MoveKind]
) -> None:
    model = await everywhere(mesh, checkpoint, mesh.library.digest(checkpoint), level)
    cases = await with_stops(mesh.client, model, {case: longer(one) for case, one in CASES.items()})
    await check(mesh, model, cases, kinds)


async def test_an_answer_of_one_token_moves_before_it_has_come(mesh: Running) -> None:
    """Its worker stands still; when it goes on, it is told that the answer is not its any more."""
    model = await everywhere(mesh, "llama", mesh.library.digest("llama"), PATH)
    wishes = replace(CASES["seeded"].wishes, max_tokens=1)
    wanted = await ask(mesh.client, model, wishes)
    here = wanted.started.worker_id
    there = WORKERS[here == WORKERS[0]]
    os.kill(mesh.cluster.process(here).pid, signal.SIGSTOP)
    try:
        events = mesh.client.generate(model, PROMPT, wishes, request_id="one", within_s=PATIENCE_S)
        asking = asyncio.create_task(whole(events))
        await until(mesh.client.requests, lambda found: [one.worker_id for one in found] == [here])
        moved = await mesh.client.move("one", kind=MoveKind.TOKENS)
        answer = await asking
    finally:
        os.kill(mesh.cluster.process(here).pid, signal.SIGCONT)
    assert (moved.from_worker_id, moved.to_worker_id, moved.exact) == (here, there, True)
    assert (answer.started.worker_id, answer.finished.worker_id) == (there, there)
    assert (answer.token_ids, answer.finished.answers) == (wanted.token_ids, wanted.finished.answers)
    assert answer.finished.moves == ()  # its client has noticed nothing
    for worker_id in WORKERS:
        await until(lambda: replica_status(mesh.cluster, worker_id, model), is_idle)  # noqa: B023


@pytest.mark.slow
async def test_what_runs_one_sequence_a_pass_is_computed_elsewhere(mesh: Running) -> None:
    """Few at a time: the target takes as long as the source for each token."""
    model = await everywhere(mesh, "mamba2", mesh.library.digest("mamba2"), BATCH)
    await check(mesh, model, {name: longer(CASES[name]) for name in ("seeded", "penalties")}, (MoveKind.TOKENS,))


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [(MoveKind.KV, MoveKind.TOKENS), (MoveKind.TOKENS, MoveKind.KV)])
async def test_an_adapters_answers_move_beside_its_bases(
    mesh: Running, tuned: Tuned, kinds: Sequence[MoveKind]
) -> None:
    """Those are the only replicas of their base: an adapter has the level of the one that it is put on."""
    for other in await mesh.client.list():
        if other.numerics is BATCH:
            await mesh.client.delete(other.name)
    await everywhere(mesh, "llama", mesh.library.digest("llama"), PATH)
    model = await everywhere(mesh, "tuned", tuned.digest, None)
    await check(mesh, model, {name: longer(CASES[name]) for name in ("greedy", "seeded")}, kinds)


@pytest.mark.slow
async def test_answers_of_a_thousand_tokens_move(mesh: Running) -> None:
    model = await everywhere(mesh, "llama", mesh.library.digest("llama"), PATH)
    long = {
        name: replace(CASES[name], wishes=replace(CASES[name].wishes, max_tokens=1800)) for name in ("greedy", "seeded")
    }
    await check(mesh, model, long, (MoveKind.KV, MoveKind.TOKENS), begun=1000)
