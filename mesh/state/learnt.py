"""What a leader has learnt, for whoever leads next: written under the leadership's fence, when it has changed and not
for each request."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import chain

from mesh.errors import StaleFence
from mesh.state.connection import State

AT_ONCE = 500  # entries that one script writes


class Subject(StrEnum):
    """What something was learnt about."""

    RATES = "rates"  # how long things take
    DEMAND = "demand"  # when a model is asked for


class Notebook:
    """Texts by subject and name. Only the leader writes; to write an empty text is to forget."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def read(self, subject: Subject) -> dict[str, str]:
        """All of a subject. Raises Unreachable."""
        async with self._state.answering():
            entries = await self._state.redis.hgetall(self._state.keys.learnt)
        prefix = f"{subject}/"
        return {str(name).removeprefix(prefix): str(b) for name, b in entries.items() if str(name).startswith(prefix)}

    async def write(self, fence: int, subject: Subject, entries: Mapping[str, str]) -> None:
        """Adds and replaces entries. Raises StaleFence when another leads, Unreachable."""
        keys, items = self._state.keys, list(entries.items())
        for first in range(0, len(items), AT_ONCE):
            some = items[first : first + AT_ONCE]
            words = chain.from_iterable((f"{subject}/{name}", body) for name, body in some)
            if not await self._state.run("note", [keys.leader, keys.learnt], [fence, *words]):
                raise StaleFence(f"fence {fence} no longer leads; the next leader learns by itself")
