"""How a request fares while it looks for a worker: where it was tried, and what it asks for next."""

import time
from dataclasses import dataclass, field

from mesh.errors import MeshError
from mesh.requests import Placement, Wish
from services.gateway.asked import Asked
from services.gateway.strand import Prepared


class NotByThisVersion(Exception):
    """The version that has a place for the request cannot answer it; the catalogue's can."""


@dataclass(slots=True)
class Trial:
    """How often a request was tried, and where it should not be tried again."""

    place: Placement | None = None
    excluded: set[int] = field(default_factory=set)
    current_only: bool = False

    def wish(self, asked: Asked) -> Wish:
        """What is asked of the scheduler next."""
        return Wish(
            request_id=asked.request_id,
            model=asked.model,
            excluded=frozenset(self.excluded),
            current_only=self.current_only,
            service=asked.service.after(time.monotonic() - asked.arrived_s),
            prompt_tokens=len(asked.prepared.question.prompt),
        )

    async def prepared(self, asked: Asked, digest: str) -> Prepared:
        """The request for the version that has a place for it; raises NotByThisVersion."""
        if digest == asked.prepared.question.digest:
            return asked.prepared
        try:
            return await asked.prepare(digest)
        except MeshError as error:
            if self.current_only:
                raise
            raise NotByThisVersion from error
