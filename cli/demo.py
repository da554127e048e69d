"""whimbrel demo: the main job, once through, on a cluster that is gone afterwards."""

import asyncio
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table

from cli.answer import show_answer, summary
from cli.cluster import ClusterOptions, LocalCluster
from cli.demo_models import MODELS, TINY_MIXTRAL, TRAINED, DemoModel, deploy_model, making
from cli.generate import ask
from cli.measures import time_text
from cli.process import ServiceProcess
from cli.terminal import Terminal, run
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Finished, ModelState, SamplingWishes
from mesh.errors import Expired

KEEP_ALIVE_S = 2.0  # of the trained model, so that it goes to zero while one watches
TO_ZERO_S = 60.0
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


@dataclass(frozen=True, slots=True)
class Played:
    """An act, and how it went."""

    act: Act
    finished: Finished


def demo(context: typer.Context) -> None:
    """Runs the whole mesh for a minute: cold start, warm answer, scale to zero, wake-up from DRAM.

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
            played = await _play(terminal, client, models_dir)
        _heading(terminal, "Ending all processes")
    return played


async def _play(terminal: Terminal, client: GatewayClient, directory: Path) -> list[Played]:
    _heading(terminal, f"Deploying {len(MODELS)} models from their Hugging Face directories")
    for model in MODELS:
        await deploy_model(terminal, client, model, directory, KEEP_ALIVE_S if model is TRAINED else None)
    cold = await _ask(terminal, client, COLD)
    warm = await _ask(terminal, client, WARM)
    await _until_zero(terminal, client, TRAINED)
    awake = await _ask(terminal, client, AWAKE)
    return [cold, warm, awake, await _ask(terminal, client, OTHER)]


async def _ask(terminal: Terminal, client: GatewayClient, act: Act) -> Played:
    _heading(terminal, f"{act.model.name}: {act.title}")
    terminal.out.print(f"> {act.prompt}", style="cyan")
    chat = act.model is TRAINED
    events = ask(client, act.model.name, act.prompt, act.sampling, chat=chat)
    finished = await show_answer(terminal, events, progress=terminal.out, keep_progress=True)
    terminal.out.print(summary(finished), style="dim", soft_wrap=True)
    return Played(act, finished)


async def _until_zero(terminal: Terminal, client: GatewayClient, model: DemoModel) -> None:
    """Returns when no worker has the model any more, as the gateway's watch says."""
    _heading(terminal, f"{model.name}: nobody asks, so it goes to zero (keep-alive {time_text(KEEP_ALIVE_S)})")
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(TO_ZERO_S), aclosing(client.watch([model.name])) as changes:
            async for change in changes:
                if change.model and change.model.state is ModelState.COLD:
                    break
    except TimeoutError as error:
        raise Expired(f"{model.name} is still loaded after {TO_ZERO_S:g} s without a request") from error
    tier = f"its checkpoint stays in {change.model.nearest_tier}" if change.model else ""
    terminal.out.print(f"  on no worker after {time_text(time.monotonic() - began_s)}; {tier}")


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
