"""whimbrel update and rollback: another checkpoint under the same name."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated

import typer

from cli.bar import Bar
from cli.catalogue import (
    MAX_HELP,
    MIN_HELP,
    NUMERICS_HELP,
    SHOWN_DIGEST,
    SOURCE_HELP,
    TARGET_HELP,
    address_of,
    checkpoint_text,
    imported,
)
from cli.measures import parse_duration_s
from cli.terminal import Terminal, run
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model
from mesh.facts import NumericsLevel


def update(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A deployed model.")],
    source: Annotated[str, typer.Argument(help=SOURCE_HELP, show_default=False)] = "",
    *,
    checkpoint: Annotated[str, typer.Option(metavar="DIGEST", help="A checkpoint imported before, instead.")] = "",
    keep_alive: Annotated[
        str, typer.Option(metavar="TIME", help="How long it stays loaded when idle: 30s, 5m. Empty: as it is.")
    ] = "",
    numerics: Annotated[NumericsLevel | None, typer.Option(help=NUMERICS_HELP, show_default=False)] = None,
    min_replicas: Annotated[int | None, typer.Option(min=0, help=MIN_HELP, show_default=False)] = None,
    max_replicas: Annotated[int | None, typer.Option(min=0, help=MAX_HELP, show_default=False)] = None,
    target_concurrency: Annotated[int | None, typer.Option(min=0, help=TARGET_HELP, show_default=False)] = None,
) -> None:
    """Points a model at another checkpoint, importing its source first; no request is dropped.

    Answers that run finish on the checkpoint they began with. New requests go to what is loaded until the new
    checkpoint is, and then to that. Units that both checkpoints share are not moved again.
    """
    if source and checkpoint:
        raise typer.BadParameter("give SOURCE or --checkpoint DIGEST, not both")
    changed = partial(
        GatewayClient.update,
        name=name,
        keep_alive_s=parse_duration_s(keep_alive) if keep_alive else None,
        numerics=numerics,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        target_concurrency=target_concurrency,
    )
    if not (source or checkpoint) and all(changed.keywords[key] is None for key in changed.keywords if key != "name"):
        raise typer.BadParameter("say what changes: SOURCE, --checkpoint, or one of the other options")
    terminal: Terminal = context.obj
    run(terminal, _update(terminal, name, address_of(source) if source else "", checkpoint, changed))


def rollback(context: typer.Context, name: Annotated[str, typer.Argument(help="A deployed model.")]) -> None:
    """Goes back to the checkpoint before the last update; a second rollback undoes the first.

    It switches as an update does. The former checkpoint stays in the store's DRAM while there is room, so going back
    usually reads no disk.
    """
    terminal: Terminal = context.obj
    run(terminal, _rollback(terminal, name))


async def _update(
    terminal: Terminal,
    name: str,
    source: str,
    checkpoint: str,
    changed: Callable[..., Coroutine[None, None, Model]],
) -> None:
    async with terminal.client() as client:
        if source:
            await client.get(name)  # before an import's minutes
            checkpoint = (await imported(client.import_checkpoint(source), Bar(terminal.err))).digest
        model = await changed(client, checkpoint=checkpoint or None)
    terminal.out.print(f"updated {_about(model)}", soft_wrap=True)
    if checkpoint and model.previous_checkpoint:
        terminal.err.print(
            f"it was {model.previous_checkpoint[:SHOWN_DIGEST]}; to go back: whimbrel rollback {name}",
            style="dim",
            soft_wrap=True,
        )


async def _rollback(terminal: Terminal, name: str) -> None:
    async with terminal.client() as client:
        model = await client.rollback(name)
    terminal.out.print(f"rolled back {_about(model)}", soft_wrap=True)


def _about(model: Model) -> str:
    digest = model.checkpoint.digest[:SHOWN_DIGEST]
    return f"{model.name} to {digest}: {checkpoint_text(model.checkpoint)}"
