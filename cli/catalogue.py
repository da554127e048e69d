"""whimbrel deploy, import, delete and models: the catalogue from the command line."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from cli.bar import Bar
from cli.measures import bytes_text, parse_duration_s, time_text
from cli.terminal import Terminal, run
from cli.whereabouts import nearest, whereabouts
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import MemberStatus, Model, ModelReplica
from mesh.errors import Broken
from mesh.facts import CheckpointSummary, NumericsLevel
from mesh.requests import ImportProgress

T = TypeVar("T")
COLUMNS = (
    "model", "state", "replicas", "bounds", "target", "nearest", "size", "architecture", "keep-alive", "numerics",
    "checkpoint", "previous",
)  # fmt: skip
SHOWN_DIGEST = 12  # characters that tell checkpoints apart
SOURCE_HELP = (
    "A Hugging Face directory on the store's machine, or an address: s3://, gs://, az://, https:// or "
    "hf://organisation/name@revision."
)
BASE_HELP = "Of an adapter (a PEFT directory): the checkpoint that it adapts."
MIN_HELP = "Replicas that are there whether or not anybody asks."
MAX_HELP = "Most replicas that requests may bring about; 0: as many as there are workers."
TARGET_HELP = "Requests at a replica before another one is worth its load; 0: as many as it runs at once."
NUMERICS_HELP = "How closely its answers agree with themselves, from the next load on. Unset: the worker's default."


def deploy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What requests will call the model.")],
    source: Annotated[str | None, typer.Argument(help=SOURCE_HELP, show_default=False)] = None,
    *,
    checkpoint: Annotated[str, typer.Option(metavar="DIGEST", help="A checkpoint imported before, instead.")] = "",
    base: Annotated[str, typer.Option(metavar="DIGEST", help=BASE_HELP)] = "",
    keep_alive: Annotated[
        str, typer.Option(metavar="TIME", help="Longest that it stays loaded when idle: 30s, 5m. Empty: the default.")
    ] = "",
    numerics: Annotated[NumericsLevel | None, typer.Option(help=NUMERICS_HELP, show_default=False)] = None,
    min_replicas: Annotated[int, typer.Option(min=0, help=MIN_HELP)] = 0,
    max_replicas: Annotated[int, typer.Option(min=0, help=MAX_HELP)] = 0,
    target_concurrency: Annotated[int, typer.Option(min=0, help=TARGET_HELP)] = 0,
) -> None:
    """Adds a model to the catalogue, importing its source first.

    Nothing is loaded until a request asks for it, or is expected to, unless --min-replicas says so.
    """
    if (source is None) == (not checkpoint):
        raise typer.BadParameter("give either SOURCE or --checkpoint DIGEST")
    keep_alive_s = parse_duration_s(keep_alive) if keep_alive else None
    source = address_of(source) if source else ""
    deployed = partial(
        GatewayClient.deploy,
        name=name,
        source=source,
        checkpoint=checkpoint,
        base=base,
        keep_alive_s=keep_alive_s,
        numerics=numerics,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        target_concurrency=target_concurrency,
    )
    terminal: Terminal = context.obj
    run(terminal, _deploy(terminal, deployed))


def import_(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    *,
    base: Annotated[str, typer.Option(metavar="DIGEST", help=BASE_HELP)] = "",
) -> None:
    """Turns a Hugging Face model or a PEFT adapter into a checkpoint, without deploying it, and prints its digest.

    An import that was interrupted goes on where it had come to.
    """
    terminal: Terminal = context.obj
    run(terminal, _import(terminal, address_of(source), base))


def delete(context: typer.Context, name: Annotated[str, typer.Argument(help="A deployed model.")]) -> None:
    """Takes a model out of the catalogue; running answers finish, its checkpoint stays in the store."""
    terminal: Terminal = context.obj
    run(terminal, _delete(terminal, name))


def models(context: typer.Context) -> None:
    """Lists the catalogue: each model's state and size, where its bytes lie, and the checkpoint that it points at.

    Bounds are its least and most replicas; target is how many requests at one are worth another.
    """
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


async def _deploy(
    terminal: Terminal, deployed: Callable[[GatewayClient], AsyncGenerator[ImportProgress | Model]]
) -> None:
    async with terminal.client() as client:
        model = await imported(deployed(client), Bar(terminal.err))
    terminal.out.print(f"deployed {model.name}: {checkpoint_text(model.checkpoint)}", soft_wrap=True)


async def _import(terminal: Terminal, source: str, base: str) -> None:
    async with terminal.client() as client:
        checkpoint = await imported(client.import_checkpoint(source, base), Bar(terminal.err))
    terminal.err.print(checkpoint_text(checkpoint), style="dim", soft_wrap=True)
    terminal.out.print(checkpoint.digest, soft_wrap=True)


async def _delete(terminal: Terminal, name: str) -> None:
    async with terminal.client() as client:
        await client.delete(name)
    terminal.out.print(f"deleted {name}", soft_wrap=True)


async def _models(terminal: Terminal) -> None:
    async with terminal.client() as client:
        listed, members = await client.list(), await client.cluster()
    if not listed:
        terminal.err.print("the catalogue is empty; add a model with: whimbrel deploy NAME DIRECTORY", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for model in listed:
        table.add_row(*_row(model, members))
    terminal.out.print(table)


def _row(model: Model, members: Sequence[MemberStatus]) -> tuple[str, ...]:
    return (
        model.name,
        model.state,
        ", ".join(_replica_text(replica, model) for replica in model.replicas) or "–",
        f"{model.min_replicas}–{model.max_replicas or 'any'}",
        str(model.target_concurrency or "slots"),
        _nearest_text(model, members),
        bytes_text(model.checkpoint.bytes),
        model.checkpoint.architecture,
        "default" if model.keep_alive_s is None else time_text(model.keep_alive_s),
        model.numerics or "default",
        model.checkpoint.digest[:SHOWN_DIGEST],
        model.previous_checkpoint[:SHOWN_DIGEST] or "–",
    )


def _replica_text(replica: ModelReplica, model: Model) -> str:
    """Such as "worker-1 ready"; a former version says which it is."""
    version = "" if replica.checkpoint == model.checkpoint.digest else f" ({replica.checkpoint[:SHOWN_DIGEST]})"
    return f"{replica.worker_id} {replica.state}{version}"


def _nearest_text(model: Model, members: Sequence[MemberStatus]) -> str:
    stores = (member.store for member in members if member.store)
    holdings = (held for store in stores for held in store.checkpoints if held.digest == model.checkpoint.digest)
    if held := nearest(holdings):
        return whereabouts(held)
    return model.nearest_tier or "–"
