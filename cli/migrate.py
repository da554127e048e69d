"""whimbrel requests and migrate: what runs where, and having it go on at another worker."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from cli.measures import bytes_text, time_text
from cli.terminal import Terminal, run
from mesh.clients.gateway_records import MoveOutcome
from mesh.requests import MoveKind, RequestState


class Way(StrEnum):
    """How it goes, as `--kind` says."""

    KV = "kv"
    TOKENS = "tokens"


Kind = Annotated[
    Way | None,
    typer.Option(help="Copy what is computed of it, or compute that there; unless told, whichever is quicker."),
]
To = Annotated[
    str, typer.Option(metavar="WORKER", help="The worker to go to, as status shows it; unless told, any with room.")
]


def requests(context: typer.Context) -> None:
    """Lists the requests that wait or run, the oldest first: which model, on which worker, for how long."""
    terminal: Terminal = context.obj
    run(terminal, _requests(terminal))


def migrate(
    context: typer.Context,
    request: Annotated[str, typer.Argument(help="The request's id, as `whimbrel requests` shows it.")],
    *,
    to: To = "",
    kind: Kind = None,
) -> None:
    """Has a running request go on at another worker, in the midst of its answer; returns when it does.

    Its client notices nothing but a short pause. A model that is not there yet is loaded first. Ctrl-C before it
    begins calls it off.
    """
    terminal: Terminal = context.obj
    run(terminal, _migrate(terminal, request, to, MoveKind(kind) if kind else None))


async def _requests(terminal: Terminal) -> None:
    async with terminal.client() as client:
        found = await client.requests()
    if found:
        terminal.out.print(table(found))
    else:
        terminal.out.print("no request waits or runs")


async def _migrate(terminal: Terminal, request_id: str, to: str, kind: MoveKind | None) -> None:
    async with terminal.client() as client:
        moved = await client.move(request_id, to_worker_id=to, kind=kind)
    terminal.out.print(f"{request_id}: {told(moved)}", soft_wrap=True, highlight=False)


def table(found: Sequence[RequestState]) -> Table:
    """One row each."""
    shown = Table(box=None, pad_edge=False)
    for column in ("request", "model", "worker", "age", "tenant"):
        shown.add_column(column)
    for one in found:
        where = f"{one.worker_id} → {one.to_worker_id}" if one.to_worker_id else one.worker_id or "(waits)"
        shown.add_row(one.request_id, one.model, where, time_text(one.age_s), one.tenant)
    return shown


def told(moved: MoveOutcome) -> str:
    """What a move came to, in a line."""
    copied = moved.kind is MoveKind.KV
    how = f"{bytes_text(moved.bytes_sent)} of KV copied" if copied else "its tokens computed there"
    exact = "exact" if moved.exact else "not exact"
    times = f"in {time_text(moved.took_s)}, {time_text(moved.gap_s)} without a token, {exact}"
    return f"{moved.from_worker_id} → {moved.to_worker_id}, {how} {times}"
