"""Which workers and nodes are to become empty: written by gateways, read through the mirror, kept until undone."""

from mesh.facts import Kind, Member
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT


def worker_drain(worker_id: str) -> str:
    """The name of a worker's drain in ClusterFacts.drains."""
    return f"{Kind.WORKER}/{worker_id}"


def node_drain(node: str) -> str:
    """The name of a node's."""
    return f"node/{node}"


def drained_by(name: str, member: Member) -> bool:
    """Whether a drain of that name is about this process."""
    return name in (f"{member.kind}/{member.id}", node_drain(member.node))


class Drains:
    """Begins and ends drains; either may be done twice."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, name: str) -> bool:
        """False when it was draining already. Raises Unreachable."""
        return await self._change("drain", name)

    async def end(self, name: str) -> bool:
        """False when it was not draining. Raises Unreachable."""
        return await self._change("undrain", name)

    async def _change(self, kind: str, name: str) -> bool:
        keys = self._state.keys
        return bool(await self._state.run("drain", [keys.drains, keys.events], [kind, name, EVENTS_KEPT]))
