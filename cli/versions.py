"""whimbrel update and rollback: another checkpoint under the same name."""

from typing import Annotated

import typer

from cli.bar import Bar
from cli.catalogue import NUMERICS_HELP, SHOWN_DIGEST, SOURCE_HELP, address_of, checkpoint_text, imported
from cli.measures import parse_duration_s
from cli.terminal import Terminal, run
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
) -> None:
    """Points a model at another checkpoint, importing its source first; no request is dropped.

    Answers that run finish on the checkpoint they began with. New requests go to what is loaded until the new
    checkpoint is, and then to that. Units that both checkpoints share are not moved again.
    """
    if source and checkpoint:
        raise typer.BadParameter("give SOURCE or --checkpoint DIGEST, not both")
    if not (source or checkpoint or keep_alive or numerics):
        raise typer.BadParameter("say what changes: SOURCE, --checkpoint, --keep-alive or --numerics")
    keep_alive_s = parse_duration_s(keep_alive) if keep_alive else None
    terminal: Terminal = context.obj
    source = address_of(source) if source else ""
    run(terminal, _update(terminal, name, source, checkpoint, keep_alive_s=keep_alive_s, numerics=numerics))


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
    *,
    keep_alive_s: float | None,
    numerics: NumericsLevel | None,
) -> None:
    async with terminal.client() as client:
        if source:
            await client.get(name)  # before an import's minutes
            checkpoint = (await imported(client.import_checkpoint(source), Bar(terminal.err))).digest
        model = await client.update(name, checkpoint=checkpoint or None, keep_alive_s=keep_alive_s, numerics=numerics)
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
