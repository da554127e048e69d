"""Answers of every kind that move between two workers and back while they are read: what clients read is what they read
without that."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.channel import Channels
from mesh.clients.gateway_records import AnswerEvent, Delta, Started
from mesh.clients.scheduler import SchedulerClient
from mesh.facts import NumericsLevel, ReplicaState
from mesh.requests import MoveKind
from tests.e2e.asking import PATIENCE_S, PROMPT, Answer, deploy, is_idle, replica_status, until, until_model, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library
from tests.e2e.test_resume import Case, Watch, answers, count, likely, with_stops

BEGUN = 5  # tokens of the first answer that begins when it moves
WORKERS = ("worker-1", "worker-2")
LENGTH = 440  # of each answer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """A cluster of two workers."""
    options = ClusterOptions(
        tmp_path_factory.mktemp("moves"), settings=SETTINGS | {"WHIMBREL_MOVES": "0", "WHIMBREL_MOVE_STOP_S": "30"}
    )  # but those that are asked for
    async with running(options, library, ("llama", "mamba2")) as cluster:
        yield cluster


async def everywhere(mesh: Running, checkpoint: str, level: NumericsLevel) -> str:
    """A model that both workers have."""
    name = f"{checkpoint}-{level}".replace("_", "-")
    if name not in {model.name for model in await mesh.client.list()}:
        await deploy(mesh.client, name, checkpoint=mesh.library.digest(checkpoint), numerics=level)
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

    def __init__(self, mesh: Running, schedulers: SchedulerClient, request_id: str, kinds: Sequence[MoveKind]) -> None:
        self._address = mesh.cluster.process("scheduler-1").address.result()
        self._schedulers, self._request_id, self._kinds = schedulers, request_id, kinds

    async def over(self, events: AsyncGenerator[AnswerEvent]) -> AsyncGenerator[AnswerEvent]:
        """The events, as they come."""
        at, moving = "", False
        async with asyncio.TaskGroup() as group, aclosing(events):
            async for event in events:
                if isinstance(event, Started):
                    at = event.worker_id
                if isinstance(event, Delta) and not moving and event.seq + len(event.token_ids) >= BEGUN:
                    moving = True
                    group.create_task(self._move(at))
                yield event

    async def _move(self, at: str) -> None:
        for kind in self._kinds:
            to = WORKERS[at == WORKERS[0]]
            moved = await self._schedulers.move(self._address, self._request_id, to, kind)
            assert (moved.from_worker_id, moved.to_worker_id, moved.outcome.kind) == (at, to, kind)
            at = to


async def moved(mesh: Running, model: str, cases: Mapping[str, Case], kinds: Sequence[MoveKind]) -> dict[str, Answer]:
    """All at once, each to its end, and each moved."""
    channels = Channels()

    def asked(name: str, case: Case) -> AsyncGenerator[AnswerEvent]:
        request_id = f"{model}/{name}"
        events = mesh.client.generate(
            model, PROMPT, case.wishes, answers=case.answers, request_id=request_id, within_s=PATIENCE_S
        )
        return Mover(mesh, SchedulerClient(channels), request_id, kinds).over(events)

    found = await asyncio.gather(*(whole(asked(name, case)) for name, case in cases.items()))
    await channels.close()
    return dict(zip(cases, found, strict=True))


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
        ("llama", NumericsLevel.PATH_INVARIANT, (MoveKind.KV, MoveKind.TOKENS)),
        ("llama", NumericsLevel.BATCH_INVARIANT, (MoveKind.TOKENS, MoveKind.KV)),
        ("mamba2", NumericsLevel.BATCH_INVARIANT, (MoveKind.KV,)),
        ("mamba2", NumericsLevel.BATCH_INVARIANT, (MoveKind.TOKENS,)),
    ],
)
async def test_answers_of_every_kind_read_whole_when_they_move(
    mesh: Running, checkpoint: str, level: NumericsLevel, kinds: Sequence[MoveKind]
) -> None:
    name = await everywhere(mesh, checkpoint, level)
    cases = {case: longer(one) for case, one in (await with_stops(mesh.client, name)).items()}
    wanted = await answers(mesh.client, name, cases, Watch(count(cases)))
    found = await moved(mesh, name, cases, kinds)
    for case, answer in found.items():
        same(answer, wanted[case])
        moves = [move for move in answer.finished.moves if move.index == 0]
        assert [move.kind for move in moves] == list(kinds), case
        assert all(move.exact and move.reason == "asked" and move.gap_s > 0 for move in moves), case
        assert answer.finished.worker_id == moves[-1].to_worker_id
    for worker_id in WORKERS:
        await until(lambda: replica_status(mesh.cluster, worker_id, name), is_idle)  # noqa: B023
