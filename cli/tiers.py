"""whimbrel prefetch and evict: a checkpoint's bytes nearer, before anybody asks, and out again."""

from contextlib import aclosing
from enum import StrEnum
from typing import Annotated

import typer

from cli.bar import Bar
from cli.measures import bytes_text
from cli.terminal import Terminal, run
from mesh.clients.gateway_records import Prefetching
from mesh.errors import Broken
from mesh.facts import Tier

NAME_HELP = "A deployed model: the checkpoint that it points at now."
Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="DIGEST", help="A checkpoint instead of a model: an adapter, a former version, or what nobody deployed."
    ),
]


class StoreTier(StrEnum):
    """The tiers of a store."""

    DISK = "disk"
    DRAM = "dram"


def prefetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=NAME_HELP)] = "",
    *,
    checkpoint: Checkpoint = "",
    tier: Annotated[StoreTier, typer.Option(help="How near to bring it.")] = StoreTier.DRAM,
    store: Annotated[
        str, typer.Option(metavar="ID", help="Which store, as status names it. Empty: the one with most of it.")
    ] = "",
) -> None:
    """Brings a model's checkpoint, or any other, to a store's DRAM or disk, so that its next start is a near one.

    What requests wait for goes first. The bytes are not held there: what is used least makes room for what is
    needed. Ctrl-C gives up; what has come by then stays.
    """
    _check_one_of(name, checkpoint)
    terminal: Terminal = context.obj
    run(terminal, _prefetch(terminal, name, checkpoint, Tier(tier), store))


def evict(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=NAME_HELP)] = "",
    *,
    checkpoint: Checkpoint = "",
    tier: Annotated[StoreTier, typer.Option(help="The tier to drop it from.")] = StoreTier.DRAM,
    store: Annotated[str, typer.Option(metavar="ID", help="Which store. Empty: all of them.")] = "",
) -> None:
    """Drops a model's checkpoint, or any other, from the DRAM or the disk of one store, or of all.

    It stays where it is in use. From a disk it goes only when it can be fetched again from another store or an
    origin; the model stays in the catalogue.
    """
    _check_one_of(name, checkpoint)
    terminal: Terminal = context.obj
    run(terminal, _evict(terminal, name, checkpoint, Tier(tier), store))


def _check_one_of(name: str, checkpoint: str) -> None:
    if bool(name) == bool(checkpoint):
        raise typer.BadParameter("give either NAME or --checkpoint DIGEST")


async def _prefetch(terminal: Terminal, name: str, checkpoint: str, tier: Tier, store_id: str) -> None:
    last: Prefetching | None = None
    async with (
        terminal.client() as client,
        aclosing(client.prefetch(name, tier, store_id, checkpoint=checkpoint)) as moves,
    ):
        with Bar(terminal.err) as bar:
            async for last in moves:
                bar.prefetching(last.store_id, tier, last.progress)
    if last is None:
        raise Broken("the gateway ended the prefetch without saying how far it came")
    terminal.out.print(f"{name or checkpoint} is in {tier} of {last.store_id}: {bytes_text(last.progress.bytes_total)}")


async def _evict(terminal: Terminal, name: str, checkpoint: str, tier: Tier, store_id: str) -> None:
    async with terminal.client() as client:
        freed_bytes = await client.evict(name, tier, store_id, checkpoint=checkpoint)
    terminal.out.print(f"freed {bytes_text(freed_bytes)} of {tier}")
