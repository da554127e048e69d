"""whimbrel up: a cluster on this machine that stays until Ctrl-C."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.cluster import ClusterOptions, LocalCluster
from cli.demo_models import MODELS, TRAINED, deploy_model, making
from cli.process import ServiceProcess
from cli.terminal import Terminal, run
from cli.tryouts import tryouts
from mesh.errors import MeshError

GATEWAY_PORT = 50051
ROOT = Path(__file__).resolve().parent.parent


def up(
    context: typer.Context,
    *,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many worker processes.")] = 2,
    schedulers: Annotated[
        int, typer.Option(min=1, max=8, help="How many scheduler processes: one leads, and another soon if it dies.")
    ] = 1,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the gateway listens; 0 takes a free port.")
    ] = GATEWAY_PORT,
    data: Annotated[Path, typer.Option(help="Where checkpoints, state and logs are kept.")] = Path(".whimbrel"),
    empty: Annotated[bool, typer.Option("--empty", help="Do not deploy the demo models.")] = False,
) -> None:
    """Starts a cluster on this machine and keeps it running until Ctrl-C.

    The first time it deploys three small models; what is deployed later is there again the next time.
    """
    terminal: Terminal = context.obj
    options = ClusterOptions(
        data.absolute(), workers=workers, schedulers=schedulers, gateway_port=gateway_port, keep_state=True
    )
    run(terminal, _up(terminal, options, empty=empty), stopped_code=0)


async def _up(terminal: Terminal, options: ClusterOptions, *, empty: bool) -> None:
    terminal.out.print(
        f"starting {options.workers + options.schedulers + 2} processes and a Valkey; data in {options.data_dir}"
    )
    async with LocalCluster(options) as cluster:
        if not empty:
            await _stock(terminal, cluster)
        terminal.out.print(_table(cluster))
        _print_tryouts(terminal, cluster)
        async for process in cluster.unexpected_exits():
            await _replace(terminal, cluster, process)


async def _stock(terminal: Terminal, cluster: LocalCluster) -> None:
    """Deploys the demo's models into an empty catalogue."""
    directory = cluster.options.data_dir / "models"
    async with cluster.client() as client:
        if await client.list():
            return
        terminal.out.print("deploying the demo's models")
        async with making(MODELS, directory) as made:
            await made()
        for model in MODELS:
            await deploy_model(terminal, client, model, directory)


async def _replace(terminal: Terminal, cluster: LocalCluster, process: ServiceProcess) -> None:
    """Starts a process again that ended by itself; one that does not come back is left."""
    name = process.program.id
    terminal.err.print(f"{name} ended with exit code {process.ended.result()}; starting it again", style="yellow")
    try:
        again = await cluster.restart(name)
    except MeshError as error:
        terminal.failed(error)
    else:
        terminal.err.print(f"{name} serves again on {again.address.result()}", style="yellow")


def _table(cluster: LocalCluster) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("process", "address", "pid", "log"):
        table.add_column(column, overflow="fold")
    for process in cluster.processes:
        table.add_row(process.program.id, process.address.result(), str(process.pid), str(process.log))
    return table


def _print_tryouts(terminal: Terminal, cluster: LocalCluster) -> None:
    port = int(cluster.gateway_address.rpartition(":")[2])
    terminal.out.print("\nTo try, in another terminal at the repository's root:\n", style="bold")
    for tryout in tryouts(_bin_dir(), port, GATEWAY_PORT, TRAINED.name):
        terminal.out.print(f"# {tryout.about}", style="dim", soft_wrap=True)
        terminal.out.print(tryout.line, soft_wrap=True)
    terminal.out.print("\nCtrl-C ends the cluster.", style="bold")


def _bin_dir() -> Path | None:
    """Where this environment's programs are, from the repository's root if they are below it; None: on the PATH."""
    if sys.prefix == sys.base_prefix:
        return None
    directory = Path(sys.prefix) / "bin"
    return directory.relative_to(ROOT) if directory.is_relative_to(ROOT) else directory
