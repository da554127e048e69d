"""whimbrel demo: the main job, once through, on a cluster that is gone afterwards."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table

from cli.answer import show_answer, summary
from cli.cluster import ClusterOptions, LocalCluster
from cli.demo_models import MODELS, TINY_MIXTRAL, TRAINED, DemoModel, deploy_model, making
from cli.demo_moves import STORY, TELLING, Told, told, what_befell
from cli.generate import ask
from cli.measures import time_text
from cli.process import ServiceProcess
from cli.terminal import Terminal, run
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Finished, Model, ModelState, SamplingWishes, Started
from mesh.errors import Expired
from mesh.facts import ReplicaState

KEEP_ALIVE_S = 2.0  # of the trained model, so that it goes to zero while one watches
UNTIL_S = 60.0  # for what a watch is to show
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Act:
    """One request of the demo."""

    title: str
    model: DemoModel
    prompt: str
    sampling: SamplingWishes


COLD = Act("a model that nobody has loaded", TRAINED, "What is a whimbrel?", SamplingWishes(max_tokens=120))
WARM = Act("the same model, now warm", TRAINED, "What does a whimbrel look like?", SamplingWishes(max_tokens=120))
AWAKE = Act("awake again, from DRAM", TRAINED, "Why is a cold start slow?", SamplingWishes(max_tokens=120))
OTHER = Act(
    "another architecture (its weights are random, so is its text)",
    TINY_MIXTRAL,
    "A whimbrel flies",
    SamplingWishes(max_tokens=24, temperature=1.0, seed=1),
)


UNDISTURBED = Act("a story, undisturbed", TRAINED, STORY, TELLING)
MOVED = Act("the story again; it moves to the other worker in the midst", TRAINED, STORY, TELLING)
KILLED = Act("and again; its worker is killed in the midst", TRAINED, STORY, TELLING)


@dataclass(frozen=True, slots=True)
class Played:
    """An act, and how it went."""

    act: Act
    finished: Finished


def demo(context: typer.Context) -> None:
    """Runs the whole mesh for a minute: cold start, warm answer, scale to zero, wake-up from DRAM, an answer that moves
    in the midst of a sentence, and one whose worker is killed.

    Everything it starts ends with it; everything it writes goes to a temporary directory.
    """
    terminal: Terminal = context.obj
    run(terminal, _demo(terminal))


async def _demo(terminal: Terminal) -> None:
    with tempfile.TemporaryDirectory(prefix="whimbrel-demo-") as scratch:
        played = await _perform(terminal, ClusterOptions(Path(scratch), workers=WORKERS))
    _heading(terminal, "What it took")
    terminal.out.print(_table(played))


async def _perform(terminal: Terminal, options: ClusterOptions) -> list[Played]:
    _heading(terminal, f"Starting a Valkey, a scheduler, a store, a gateway and {options.workers} workers")
    models_dir = options.data_dir / "models"
    cluster = LocalCluster(options, on_serving=lambda process: _say_serving(terminal, process))
    async with making(MODELS, models_dir) as made, cluster:
        await made()
        async with cluster.client() as client:
            played = await _play(terminal, client, models_dir, cluster)
        _heading(terminal, "Ending all processes")
    return played


async def _play(terminal: Terminal, client: GatewayClient, directory: Path, cluster: LocalCluster) -> list[Played]:
    _heading(terminal, f"Deploying {len(MODELS)} models from their Hugging Face directories")
    for model in MODELS:
        await deploy_model(terminal, client, model, directory, KEEP_ALIVE_S if model is TRAINED else None)
    cold = await _ask(terminal, client, COLD)
    warm = await _ask(terminal, client, WARM)
    await _until_zero(terminal, client, TRAINED)
    awake = await _ask(terminal, client, AWAKE)
    other = await _ask(terminal, client, OTHER)
    return [cold, warm, awake, other, *await _tell(terminal, client, cluster)]


async def _tell(terminal: Terminal, client: GatewayClient, cluster: LocalCluster) -> list[Played]:
    """The story three times. Both workers have the model by then."""
    await client.update(TRAINED.name, min_replicas=WORKERS)
    await _until(client, TRAINED, _is_ready)
    before, after_move, after_kill = Told(), Told(), Told()
    undisturbed = await _ask(terminal, client, UNDISTURBED, before)
    moved = await _ask(terminal, client, MOVED, after_move, lambda started: client.move(started.request_id))
    _say_befell(terminal, what_befell(moved.finished, after_move, before))
    killed = await _ask(terminal, client, KILLED, after_kill, lambda started: cluster.kill(started.worker_id))
    _say_befell(terminal, what_befell(killed.finished, after_kill, before))
    return [undisturbed, moved, killed]


async def _ask(
    terminal: Terminal,
    client: GatewayClient,
    act: Act,
    telling: Told | None = None,
    befall: Callable[[Started], Awaitable[object]] | None = None,
) -> Played:
    _heading(terminal, f"{act.model.name}: {act.title}")
    terminal.out.print(f"> {act.prompt}", style="cyan")
    events = ask(client, act.model.name, act.prompt, act.sampling, chat=act.model is TRAINED)
    noted = told(events, telling or Told(), befall)
    finished = await show_answer(terminal, noted, progress=terminal.out, keep_progress=True)
    terminal.out.print(summary(finished), style="dim", soft_wrap=True)
    return Played(act, finished)


async def _until_zero(terminal: Terminal, client: GatewayClient, model: DemoModel) -> None:
    """Returns when no worker has the model any more, as the gateway's watch says."""
    _heading(terminal, f"{model.name}: nobody asks, so it goes to zero (keep-alive {time_text(KEEP_ALIVE_S)})")
    began_s = time.monotonic()
    zero = await _until(client, model, lambda shown: shown.state is ModelState.COLD)
    took = time_text(time.monotonic() - began_s)
    terminal.out.print(f"  on no worker after {took}; its checkpoint stays in {zero.nearest_tier}")


async def _until(client: GatewayClient, model: DemoModel, so: Callable[[Model], bool]) -> Model:
    """The model, once the gateway's watch shows it so. Raises Expired."""
    try:
        async with asyncio.timeout(UNTIL_S), aclosing(client.watch([model.name])) as changes:
            async for change in changes:
                if change.model and so(change.model):
                    return change.model
    except TimeoutError:
        pass
    raise Expired(f"the gateway does not show {model.name} as it should be after {UNTIL_S:g} s")


def _is_ready(model: Model) -> bool:
    """Whether every worker has it."""
    return sum(one.state is ReplicaState.READY for one in model.replicas) >= WORKERS


def _say_befell(terminal: Terminal, text: str) -> None:
    terminal.out.print(text, style="bold green", soft_wrap=True)


def _say_serving(terminal: Terminal, process: ServiceProcess) -> None:
    terminal.out.print(f"  {process.program.id:<13} {process.address.result():<16} pid {process.pid}", style="dim")


def _heading(terminal: Terminal, text: str) -> None:
    terminal.out.print(f"\n{text}", style="bold", soft_wrap=True)


def _table(played: list[Played]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("request")
    table.add_column("model")
    table.add_column("start")
    for column in ("queue", "load", "first token", "tokens/s"):
        table.add_column(column, justify="right")
    for one in played:
        table.add_row(*_row(one))
    return table


def _row(played: Played) -> tuple[str, ...]:
    finished = played.finished
    speed = finished.tokens_per_s
    return (
        played.act.title.partition(" (")[0],
        played.act.model.name,
        finished.start_kind,
        time_text(finished.times.queue_s),
        time_text(finished.times.load_s),
        time_text(finished.time_to_first_token_s),
        "–" if speed is None else f"{speed:.0f}",
    )
