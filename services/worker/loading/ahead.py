"""Ready before anybody asks: code and modules of the models that are deployed, as far as they are only hints.

What is not ready when a load comes, the load makes itself, so nothing here is ever waited for, and nothing fails.
"""

import asyncio
from contextlib import aclosing

import structlog
import transformers

from mesh.clients.store import StoreClient
from mesh.errors import MeshError
from mesh.facts import CheckpointSummary, Member
from mesh.state.connection import State
from mesh.state.deployments import deployments, holders
from services.worker.loading.loader import CONFIG
from services.worker.loading.quiet import Quiet
from services.worker.loading.skeletons import Skeletons

log = structlog.get_logger()


class Ahead:
    """Follows the catalogue. One step at a time, each begun only while no load is under way."""

    def __init__(self, state: State, node: str, stores: StoreClient, skeletons: Skeletons, quiet: Quiet) -> None:
        self._state, self._node, self._stores = state, node, stores
        self._skeletons, self._quiet = skeletons, quiet

    async def run(self) -> None:
        """Until cancelled."""
        async with aclosing(deployments(self._state)) as entries:
            async for entry in entries:
                try:
                    await self._prepare(entry.checkpoint)
                except MeshError as error:
                    log.info("not made ready", model=entry.name, why=error.message)
                except Exception:  # transformers' code, which a load of this model will hear of again
                    log.exception("could not be made ready", model=entry.name)

    async def _prepare(self, checkpoint: CheckpointSummary) -> None:
        digest = checkpoint.base or checkpoint.digest  # an adapter has no module of its own
        await self._quiet.come()
        await asyncio.to_thread(import_code, checkpoint.architecture)
        if self._skeletons.room and (store := await self._holder(digest)):
            manifest = (await self._stores.stat(store.address, digest)).manifest
            config = await self._stores.read_file(store.address, digest, CONFIG)
            await self._quiet.come()
            await asyncio.to_thread(self._skeletons.prepare, manifest, config)

    async def _holder(self, digest: str) -> Member | None:
        """A store that need not fetch it, on this node if one is."""
        found = await holders(self._state, digest)
        return min(found, key=lambda store: store.node != self._node, default=None)


def import_code(architecture: str) -> None:
    """Imports transformers' module of a class such as LlamaForCausalLM; nothing for a class that it does not have."""
    getattr(transformers, architecture, None)
