"""whimbrel drain and undrain: empty a worker or a node before it is stopped, and let it work again."""

from contextlib import aclosing
from typing import Annotated

import typer

from cli.terminal import Terminal, run
from mesh.clients.gateway_records import DrainLeft

WORKER_HELP = "A worker's id, as status shows it."
Node = Annotated[str, typer.Option(metavar="NODE", help="All workers of a node, instead of one.")]


def drain(
    context: typer.Context, worker: Annotated[str, typer.Argument(help=WORKER_HELP)] = "", *, node: Node = ""
) -> None:
    """Empties a worker, or all workers of a node, and returns when nothing is left on it.

    Nothing new goes there; what idles is unloaded, what runs goes on elsewhere or finishes. It stays drained, through
    restarts too, until `whimbrel undrain`; Ctrl-C only stops watching.
    """
    _check_one_of(worker, node)
    terminal: Terminal = context.obj
    run(terminal, _drain(terminal, worker, node))


def undrain(
    context: typer.Context, worker: Annotated[str, typer.Argument(help=WORKER_HELP)] = "", *, node: Node = ""
) -> None:
    """Lets a drained worker, or a drained node's workers, work again."""
    _check_one_of(worker, node)
    terminal: Terminal = context.obj
    run(terminal, _undrain(terminal, worker, node))


def _check_one_of(worker: str, node: str) -> None:
    if bool(worker) == bool(node):
        raise typer.BadParameter("give either WORKER or --node NODE")


async def _drain(terminal: Terminal, worker: str, node: str) -> None:
    name, warned = worker or node, False
    async with terminal.client() as client, aclosing(client.drain(worker, node)) as states:
        async for left in states:
            if left.only_here and not warned:
                warned, models = True, ", ".join(left.only_here)
                terminal.err.print(f"no other store has the checkpoint of {models}", style="yellow", soft_wrap=True)
            if left.replicas:
                terminal.err.print(f"{name}: {_text(left)}", style="dim")
    terminal.out.print(f"{name} is empty")


async def _undrain(terminal: Terminal, worker: str, node: str) -> None:
    async with terminal.client() as client:
        await client.undrain(worker, node)
    terminal.out.print(f"{worker or node} takes work again")


def _text(left: DrainLeft) -> str:
    return f"{_count(left.requests, 'request')} on {_count(left.replicas, 'replica')} left"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
