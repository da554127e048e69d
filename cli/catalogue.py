"""whimbrel deploy, import, delete and models: the catalogue from the command line."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from cli.bar import Bar
from cli.measures import bytes_text, parse_duration_s, time_text
from cli.terminal import Terminal, run
from mesh.clients.gateway_records import Model
from mesh.errors import Broken
from mesh.facts import CheckpointSummary
from mesh.requests import ImportProgress

T = TypeVar("T")
SHOWN_DIGEST = 12  # characters that tell checkpoints apart
SOURCE_HELP = (
    "A Hugging Face directory on the store's machine, or an address: s3://, gs://, az://, https:// or "
    "hf://organisation/name@revision."
)


def deploy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What requests will call the model.")],
    source: Annotated[str | None, typer.Argument(help=SOURCE_HELP, show_default=False)] = None,
    *,
    checkpoint: Annotated[str, typer.Option(metavar="DIGEST", help="A checkpoint imported before, instead.")] = "",
    keep_alive: Annotated[
        str, typer.Option(metavar="TIME", help="How long it stays loaded when idle: 30s, 5m. Empty: the default.")
    ] = "",
) -> None:
    """Adds a model to the catalogue, importing its directory first.

    Nothing is loaded until a request asks for it.
    """
    if (source is None) == (not checkpoint):
        raise typer.BadParameter("give either SOURCE or --checkpoint DIGEST")
    keep_alive_s = parse_duration_s(keep_alive) if keep_alive else None
    source = address_of(source) if source else ""
    terminal: Terminal = context.obj
    run(terminal, _deploy(terminal, name, source, checkpoint, keep_alive_s))


def import_(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
) -> None:
    """Turns a Hugging Face directory into a checkpoint, without deploying it, and prints its digest."""
    terminal: Terminal = context.obj
    run(terminal, _import(terminal, address_of(source)))


def delete(context: typer.Context, name: Annotated[str, typer.Argument(help="A deployed model.")]) -> None:
    """Takes a model out of the catalogue; running answers finish, its checkpoint stays in the store."""
    terminal: Terminal = context.obj
    run(terminal, _delete(terminal, name))


def models(context: typer.Context) -> None:
    """Lists the catalogue: each model's state, size, and the nearest tier that holds it."""
    terminal: Terminal = context.obj
    run(terminal, _models(terminal))


def address_of(source: str) -> str:
    """What the store can make something of: an address as it is, a path from here made absolute."""
    return source if "://" in source else str(Path(source).absolute())


async def imported(events: AsyncGenerator[ImportProgress | T], bar: Bar) -> T:
    """Shows an import's progress; returns what comes of it."""
    async with aclosing(events):
        with bar:
            async for event in events:
                if not isinstance(event, ImportProgress):
                    return event
                bar.importing(event)
    raise Broken("the gateway ended the import without a result")


def checkpoint_text(checkpoint: CheckpointSummary) -> str:
    """One line: what is in it."""
    return (
        f"{checkpoint.architecture} · {checkpoint.dtype} · {bytes_text(checkpoint.bytes)}"
        f" · {checkpoint.tensors} tensors in {checkpoint.units} units"
    )


async def _deploy(terminal: Terminal, name: str, source: str, checkpoint: str, keep_alive_s: float | None) -> None:
    async with terminal.client() as client:
        events = client.deploy(name, source=source, checkpoint=checkpoint, keep_alive_s=keep_alive_s)
        model = await imported(events, Bar(terminal.err))
    terminal.out.print(f"deployed {model.name}: {checkpoint_text(model.checkpoint)}", soft_wrap=True)


async def _import(terminal: Terminal, source: str) -> None:
    async with terminal.client() as client:
        checkpoint = await imported(client.import_checkpoint(source), Bar(terminal.err))
    terminal.err.print(checkpoint_text(checkpoint), style="dim", soft_wrap=True)
    terminal.out.print(checkpoint.digest, soft_wrap=True)


async def _delete(terminal: Terminal, name: str) -> None:
    async with terminal.client() as client:
        await client.delete(name)
    terminal.out.print(f"deleted {name}", soft_wrap=True)


async def _models(terminal: Terminal) -> None:
    async with terminal.client() as client:
        listed = await client.list()
    if not listed:
        terminal.err.print("the catalogue is empty; add a model with: whimbrel deploy NAME DIRECTORY", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("model", "state", "replicas", "nearest", "size", "architecture", "keep-alive", "checkpoint"):
        table.add_column(column)
    for model in listed:
        table.add_row(*_row(model))
    terminal.out.print(table)


def _row(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        model.state,
        ", ".join(f"{replica.worker_id} {replica.state}" for replica in model.replicas) or "–",
        model.nearest_tier or "–",
        bytes_text(model.checkpoint.bytes),
        model.checkpoint.architecture,
        "default" if model.keep_alive_s is None else time_text(model.keep_alive_s),
        model.checkpoint.digest[:SHOWN_DIGEST],
    )
