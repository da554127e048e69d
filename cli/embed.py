"""whimbrel embed: texts in, a line of numbers for each out."""

import json
import sys
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from cli import service_class
from cli.bar import Bar
from cli.measures import parse_duration_s, time_text
from cli.terminal import Terminal, run
from mesh.clients.gateway_records import Embedded, Vectors
from mesh.errors import Broken
from mesh.requests import Pooling, Progress, ServiceClass

FROM_STDIN = "-"


class PoolingChoice(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    LAST = "last"
    CLS = "cls"


def embed(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a deployed model: an encoder, or one that generates.")],
    texts: Annotated[list[str], typer.Argument(help='Texts to embed; "-" reads them from stdin, one a line.')],
    *,
    pooling: Annotated[
        PoolingChoice | None, typer.Option(help="Which tokens' vectors count. Not given: as the model's files say.")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut what is too long instead of refusing it.")] = False,
    tenant: service_class.Tenant = "",
    priority: service_class.PriorityBand = service_class.PriorityChoice.NORMAL,
    first_token_within: service_class.FirstTokenWithin = "",
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Give up after this long.")] = "10m",
) -> None:
    """Writes each text's vector to stdout, a JSON list a line, in the order of the texts.

    Vectors have length 1. A model that is not loaded is loaded first; a bar on stderr shows how far that is.
    """
    terminal: Terminal = context.obj
    lines = sys.stdin.read().splitlines() if texts == [FROM_STDIN] else texts
    asking = _Asking(
        model,
        lines,
        Pooling(pooling) if pooling else None,
        truncate,
        service_class.service_of(tenant, priority, first_token_within),
        parse_duration_s(deadline),
    )
    run(terminal, _embed(terminal, asking))


@dataclass(frozen=True, slots=True)
class _Asking:
    """What was asked for."""

    model: str
    texts: list[str]
    pooling: Pooling | None
    truncate: bool
    service: ServiceClass
    within_s: float


async def _embed(terminal: Terminal, asking: _Asking) -> None:
    watched = terminal.out.is_terminal
    async with terminal.client() as client:
        events = client.embed(
            asking.model,
            asking.texts,
            asking.pooling,
            truncate=asking.truncate,
            service=asking.service,
            within_s=asking.within_s,
        )
        async with aclosing(events):
            with Bar(terminal.err if watched else None) as bar:
                async for event in events:
                    match event:
                        case Progress():
                            bar.start(event)
                        case Vectors(_, values):
                            bar.stop()
                            terminal.write("".join(f"{json.dumps(value)}\n" for value in values))
                        case Embedded():
                            if watched:
                                terminal.err.print(_summary(event), style="dim", soft_wrap=True)
                            return
    raise Broken("the gateway ended the stream without saying how it went")


def _summary(end: Embedded) -> str:
    parts = [
        f"{end.start_kind} start",
        f"queue {time_text(end.times.queue_s)}",
        f"load {time_text(end.times.load_s)}",
        f"{end.prompt_tokens} tokens in {time_text(end.total_s)} on {end.worker_id}",
    ]
    return " · ".join(parts)
