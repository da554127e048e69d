"""The catalogue of models: written by compare-and-set, read through the mirror."""

from dataclasses import replace

from pydantic import TypeAdapter

from mesh.errors import AlreadyExists, Conflict, NotFound
from mesh.facts import ModelEntry
from mesh.state.connection import State
from mesh.state.keys import DEPLOYMENTS_KEPT, EVENTS_KEPT

ENTRY: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)
ANY_REVISION = -1


def unknown_model(name: str) -> NotFound:
    """The error that every part of the cluster gives for a name outside the catalogue."""
    return NotFound(
        f"no model {name!r} is deployed; ModelService.List shows those that are",
        reason="UNKNOWN_MODEL",
        metadata={"model": name},
    )


def taken_model(name: str) -> AlreadyExists:
    """The error for deploying a name twice."""
    return AlreadyExists(
        f"a model {name!r} is deployed already; use Update to change it, or Delete it first",
        reason="MODEL_EXISTS",
        metadata={"model": name},
    )


class Catalogue:
    """Writes entries. Each write names the revision that it replaces."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, entry: ModelEntry) -> ModelEntry:
        """Adds a model; AlreadyExists when the name is taken."""
        revision = await self._put(entry, expected=0)
        if revision < 0:
            raise taken_model(entry.name)
        return replace(entry, revision=revision)

    async def replace(self, entry: ModelEntry) -> ModelEntry:
        """Replaces revision `entry.revision`; NotFound or Conflict when that is not the current one."""
        revision = await self._put(entry, expected=entry.revision)
        if revision == -1:
            raise unknown_model(entry.name)
        if revision < 0:
            raise _conflict(entry.name)
        return replace(entry, revision=revision)

    async def remove(self, name: str, revision: int = ANY_REVISION) -> None:
        """Removes a model; NotFound or Conflict."""
        keys = self._state.keys
        done = await self._state.run(
            "delete_model", [keys.models, keys.revisions, keys.events], [name, revision, EVENTS_KEPT]
        )
        if done == 0:
            raise unknown_model(name)
        if done < 0:
            raise _conflict(name)

    async def _put(self, entry: ModelEntry, expected: int) -> int:
        keys = self._state.keys
        body = ENTRY.dump_json(replace(entry, revision=0)).decode()
        revision: int = await self._state.run(
            "put_model",
            [keys.models, keys.revisions, keys.events, keys.deployments],
            [entry.name, expected, body, EVENTS_KEPT, DEPLOYMENTS_KEPT],
        )
        return revision


def _conflict(name: str) -> Conflict:
    return Conflict(f"model {name!r} was changed in between; Get it again and retry", metadata={"model": name})
