"""whimbrel status: the processes, what runs on which worker, and which tier holds what."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from cli.catalogue import SHOWN_DIGEST
from cli.measures import bytes_text
from cli.terminal import Terminal, run
from cli.whereabouts import whereabouts
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Change, MemberStatus
from mesh.facts import ReplicaFacts, StoreFacts

SHOWN_FINGERPRINT = 8  # characters


def status(
    context: typer.Context,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show each change when it happens.")] = False,
) -> None:
    """Shows the cluster: its processes, the replicas on each worker, the checkpoints in each tier."""
    terminal: Terminal = context.obj
    run(terminal, _watch(terminal) if watch else _show(terminal), stopped_code=0 if watch else None)


async def _show(terminal: Terminal) -> None:
    async with terminal.client() as client:
        terminal.out.print(tables(await client.cluster(), await _names(client)))


async def _watch(terminal: Terminal) -> None:
    """Redraws in place on a terminal; on a pipe, each state follows the last."""
    async with terminal.client() as client:
        if not terminal.out.is_terminal:
            async for shown in _states(client):
                terminal.out.print(shown)
            return
        with Live(console=terminal.out, auto_refresh=False) as live:
            async for shown in _states(client):
                live.update(shown, refresh=True)


async def _states(client: GatewayClient) -> AsyncIterator[Group]:
    """The tables, once they are complete and again after each change."""
    members: dict[str, MemberStatus] = {}
    complete = False
    async with aclosing(client.watch_cluster()) as changes:
        async for change in changes:
            complete = complete or change.change is Change.BOOKMARK
            if change.member and change.change is Change.DELETED:
                members.pop(_key(change.member), None)
            elif change.member:
                members[_key(change.member)] = change.member
            if complete:
                yield tables([members[key] for key in sorted(members)], await _names(client))


def _key(member: MemberStatus) -> str:
    return f"{member.kind}/{member.id}"


async def _names(client: GatewayClient) -> Mapping[str, str]:
    """Digest to the names of the models that point at it, or did before their last update."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for model in await client.list():
        names[model.checkpoint.digest].append(model.name)
        if model.previous_checkpoint:
            names[model.previous_checkpoint].append(f"{model.name} (previous)")
    return {digest: ", ".join(known) for digest, known in names.items()}


def tables(members: Sequence[MemberStatus], names: Mapping[str, str]) -> Group:
    """Members, replicas and tiers; `names` are the models of each digest."""
    return Group(_members(members), "", _replicas(members), "", _tiers(members, names))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _members(members: Sequence[MemberStatus]) -> Table:
    table = _table("Members", "kind", "id", "node", "address", "fence", "")
    for member in members:
        about = "draining" if member.draining else ""
        table.add_row(member.kind, member.id, member.node, member.address, str(member.fence), about)
    return table


def _replicas(members: Sequence[MemberStatus]) -> Table:
    about_replica = ("model", "checkpoint", "runner", "state", "running", "waiting", "size", "numerics")
    table = _table("Replicas", "worker", "device", "memory", *about_replica)
    for member in members:
        worker = member.worker
        if not worker:
            continue
        about = [
            member.id,
            worker.device,
            f"{bytes_text(worker.memory_used_bytes)} of {bytes_text(worker.memory_bytes)}",
        ]
        for replica in worker.replicas:
            what = (_model(replica), replica.digest[:SHOWN_DIGEST], replica.runner or "–", replica.state)
            load = (str(replica.running), str(replica.waiting), bytes_text(replica.bytes), _numerics(replica))
            table.add_row(*about, *what, *load)
            about = ["", "", ""]
        if not worker.replicas:
            table.add_row(*about, "–", "–", "–", "idle", "–", "–", "–", "–")
    return table


def _model(replica: ReplicaFacts) -> str:
    """Its name; of an adapter, with the replica that it is on. A base that came for adapters alone has none."""
    if replica.base:
        return f"{replica.model} (on {replica.beside or replica.base[:SHOWN_DIGEST]})"
    return replica.model or "(base)"


def _numerics(replica: ReplicaFacts) -> str:
    """The level, and what two replicas that give the same bits have in common."""
    return f"{replica.numerics} {replica.fingerprint[:SHOWN_FINGERPRINT]}".rstrip()


def _tiers(members: Sequence[MemberStatus], names: Mapping[str, str]) -> Table:
    table = _table("Tiers", "store", "disk", "DRAM", "checkpoint", "models", "size", "where", "damaged")
    for member in members:
        store = member.store
        if not store:
            continue
        about = [member.id, _disk(store), _dram(store)]
        damaged = str(store.corrupt_units) if store.corrupt_units else ""  # units, since the store started
        for held in store.checkpoints:
            model_names = names.get(held.digest, "–")
            row = (held.digest[:SHOWN_DIGEST], model_names, bytes_text(held.bytes), whereabouts(held))
            table.add_row(*about, *row, damaged)
            about, damaged = ["", "", ""], ""
        if not store.checkpoints:
            table.add_row(*about, "–", "–", "–", "–", damaged)
    return table


def _disk(store: StoreFacts) -> str:
    used = bytes_text(store.disk_used_bytes)
    return f"{used} of {bytes_text(store.disk_capacity_bytes)}" if store.disk_capacity_bytes else used


def _dram(store: StoreFacts) -> str:
    return f"{bytes_text(store.dram_used_bytes)} of {bytes_text(store.dram_capacity_bytes)}"
