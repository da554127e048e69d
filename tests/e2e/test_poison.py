"""A request of which every worker dies, at the same token: it is stopped, and nobody else is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.gateway_records import SamplingWishes
from mesh.errors import Unreachable
from mesh.facts import NumericsLevel
from mesh.faults import POISON
from tests.cli.conftest import Whimbrel
from tests.e2e.asking import PROMPT, ask, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library
from tests.e2e.test_resume import Watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORKERS = 4
MODEL = "llama"
DRAWN = SamplingWishes(temperature=1.0, seed=1, max_tokens=120, ignore_eos=True)
COMMAND = ["generate", "llama", "--raw", "--seed", "1", "--temperature", "1", "--max-tokens", "120", "--ignore-eos"]
STEADY = SamplingWishes(temperature=0.0, max_tokens=1500, ignore_eos=True)
BEGUN = 20  # tokens of the poisonous answer before the deadly one, at least


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A cluster whose workers die of the tokens that `poison` names."""

    mesh: Running
    poison: Path

    @property
    def dead(self) -> list[str]:
        """Processes that have ended."""
        return [process.program.id for process in self.mesh.cluster.processes if process.ended.done()]

    async def mend(self) -> None:
        """Starts them again."""
        for name in self.dead:
            await self.mesh.cluster.restart(name)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def poisoned(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Poisoned]:
    """Its model has one replica: all requests are at one worker, and go on together at the next."""
    orders = tmp_path_factory.mktemp("orders")
    settings = SETTINGS | {"WHIMBREL_FAULTS": str(orders), "WHIMBREL_MOVES": "0"}
    options = ClusterOptions(tmp_path_factory.mktemp("poisoned"), workers=WORKERS, settings=settings)
    async with running(options, library, (MODEL,)) as mesh:
        level = NumericsLevel.BATCH_INVARIANT
        deploying = mesh.client.deploy(MODEL, checkpoint=library.digest(MODEL), numerics=level, max_replicas=1)
        async with aclosing(deploying) as events:
            async for _ in events:
                pass
        yield Poisoned(mesh, orders / POISON)


def deadly(tokens: tuple[int, ...], harmless: tuple[int, ...]) -> int:
    """One that comes late among the first, and never among the others."""
    return next(token for token in tokens[BEGUN:] if token not in tokens[:BEGUN] and token not in harmless)


async def test_a_request_that_kills_its_workers_is_stopped_and_one_beside_it_is_not(poisoned: Poisoned) -> None:
    """Neither the gateway nor a client nor the command tries it again: every try would cost a worker."""
    client, watch = poisoned.mesh.client, Watch(1)
    wanted = await ask(client, MODEL, STEADY)
    token = deadly((await ask(client, MODEL, DRAWN)).token_ids, wanted.token_ids)
    steady = asyncio.create_task(whole(watch.over(client.generate(MODEL, PROMPT, STEADY, within_s=300.0))))
    await watch.all_begun.wait()
    poisoned.poison.write_text(str(token))
    with pytest.raises(Unreachable) as stopped:
        await ask(client, MODEL, DRAWN)
    bystander = await steady
    assert stopped.value.reason == "POISONOUS"
    assert len(poisoned.dead) in (2, 3)  # three unless the other one has come further between the first two
    assert (bystander.token_ids, bystander.text) == (wanted.token_ids, wanted.text)
    assert {(move.reason, move.exact) for move in bystander.finished.moves} == {("worker lost", True)}

    await poisoned.mend()
    command = await Whimbrel(poisoned.mesh.address).run(*COMMAND, PROMPT)
    assert command.code != 0
    assert "2 workers in a row were lost" in command.err
    assert len(poisoned.dead) == 2  # it was alone at both
    poisoned.poison.unlink()
    await poisoned.mend()
    assert (await ask(client, MODEL, DRAWN)).finished.completion_tokens == DRAWN.max_tokens
