"""whimbrel explain: why a model's requests are where they are, what else could be done, and what is known of costs."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.catalogue import SHOWN_DIGEST
from cli.measures import bytes_text, time_text
from cli.terminal import Terminal, run
from mesh.explanation import Alternative, Explanation, HeldRequest, LearntRate, PastLoad, StartEstimate

A_BYTE = frozenset({"origin", "disk", "dram", "kv"})


def explain(context: typer.Context, model: Annotated[str, typer.Argument(help="The model's name.")]) -> None:
    """Says why requests for a model wait, and what every alternative would cost: mean and P90, in parts."""
    terminal: Terminal = context.obj
    run(terminal, _explain(terminal, model))


async def _explain(terminal: Terminal, model: str) -> None:
    async with terminal.client() as client:
        terminal.out.print(shown(await client.explain(model)))


def shown(explanation: Explanation) -> Group:
    """The whole of it."""
    count = explanation.waiting
    parts: list[RenderableType] = [
        f"{explanation.model}: {'no request waits' if not count else f'{count} wait'}",
        "",
        Text(f"A request that came now: {explanation.next.why}", "bold"),
        _alternatives(explanation.next),
    ]
    for held in explanation.held:
        parts += ["", Text(_title(held), "bold"), _alternatives(held)]
    if len(explanation.held) < count:
        parts += ["", f"... and {count - len(explanation.held)} more"]
    if explanation.loads:
        parts += ["", _loads(explanation.loads)]
    if explanation.rates:
        parts += ["", _rates(explanation.rates)]
    return Group(*parts)


def _title(held: HeldRequest) -> str:
    service = held.service
    whose = f" of {service.tenant}" if service.tenant else ""
    before = f", {held.position} before it" if held.position else ""
    who = f"Request {held.number}{whose} ({service.priority.name.lower()})"
    return f"{who}, after {time_text(held.waited_s)}{before}: {held.why}"


def _table(title: str | None, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _alternatives(held: HeldRequest) -> Table:
    table = _table(None, "", "way", "worker", "node", "mean", "P90", "of which", "")
    for one in held.alternatives:
        costs = (time_text(one.estimate.mean_s), time_text(one.estimate.p90_s)) if one.estimate else ("?", "?")
        parts = ", ".join(_parts(one.estimate)) if one.estimate else ""
        table.add_row("*" if one.chosen else "", one.way, one.worker_id, one.node, *costs, parts, _note(one))
    return table


def _note(one: Alternative) -> str:
    evicts = f"evicts {', '.join(one.evicts)}" if one.evicts else ""
    return ", ".join(filter(None, (evicts, one.obstacle)))


def _parts(estimate: StartEstimate) -> Iterator[str]:
    named = {
        "others' bytes": estimate.io_queue_s,
        "device": estimate.device_queue_s,
        "dram": estimate.dram_s,
        "disk": estimate.disk_s,
        "origin": estimate.origin_s,
        "init": estimate.init_s,
        "prompt": estimate.prefill_s,
    }
    return (f"{name} {time_text(seconds)}" for name, seconds in named.items() if seconds > 0)


def _loads(loads: Sequence[PastLoad]) -> Table:
    table = _table("Its last loads", "worker", "checkpoint", "from", "predicted", "P90", "actual")
    for load in loads:
        thought = (time_text(load.predicted.mean_s), time_text(load.predicted.p90_s))
        table.add_row(load.worker_id, load.digest[:SHOWN_DIGEST], load.tier, *thought, time_text(load.actual_s))
    return table


def _rates(rates: Sequence[LearntRate]) -> Table:
    table = _table("What has been learnt", "node", "of what", "rate", "spread")
    for rate in rates:
        what = " ".join(
            filter(None, (rate.quantity, rate.of[:SHOWN_DIGEST] if rate.quantity == "prefill" else rate.of))
        )
        table.add_row(rate.node or "(cluster)", what, _rate(rate), f"{rate.spread:.0%}")
    return table


def _rate(rate: LearntRate) -> str:
    return f"{bytes_text(1 / rate.mean_s)}/s" if rate.quantity in A_BYTE else time_text(rate.mean_s)
