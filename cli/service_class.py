"""The options that say how a request is treated beside others."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.measures import parse_duration_s
from mesh.facts import Priority
from mesh.requests import ServiceClass


class PriorityChoice(StrEnum):
    """Bands of service."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


Tenant = Annotated[str, typer.Option(metavar="NAME", help="Whose share of the devices this is charged to.")]
PriorityBand = Annotated[
    PriorityChoice, typer.Option("--priority", help="Those of a higher band go first where there is not room for all.")
]
FirstTokenWithin = Annotated[
    str,
    typer.Option(metavar="TIME", help="Be refused at once if the first token cannot be expected within this long."),
]


def service_of(tenant: str, priority: PriorityChoice, first_token_within: str) -> ServiceClass:
    """The class that was asked for."""
    within_s = parse_duration_s(first_token_within) if first_token_within else None
    return ServiceClass(tenant, Priority[priority.name], within_s)
