"""One request while it is run: its answers, which outlive the workers that give them, and what it asks for next."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh.errors import MeshError, Unsuitable
from mesh.requests import MoveKind, Placement, Wish
from services.gateway.asked import Asked
from services.gateway.exactness import are_exact
from services.gateway.journal import Journal
from services.gateway.owners import Handover
from services.gateway.retries import Retries
from services.gateway.strand import Prepared, Strand


class NotByThisVersion(Exception):
    """The version that has a place for the request cannot answer it; the catalogue's can."""


@dataclass(eq=False, slots=True)
class Trial:
    """How far a request has come."""

    asked: Asked
    journals: Sequence[Journal]
    retries: Retries
    place: Placement | None = None  # where it is, or was tried last
    strands: Sequence[Strand] = ()
    first_token_s: float = 0.0  # from arrival; 0: the client has had nothing
    numerics: str = ""  # fingerprint of the replica that it was granted to last
    current_only: bool = False

    def __post_init__(self) -> None:
        if self.asked.received:
            self.strands = self._strands(self.asked.prepared)
            for strand, tokens in zip(self.strands, self.asked.received, strict=True):
                strand.restore(tokens)

    @property
    def ended(self) -> bool:
        """Whether its client has all of its answers already."""
        return bool(self.strands) and all(strand.ended for strand in self.strands)

    @property
    def tokens(self) -> int:
        """Of all its answers."""
        return sum(len(journal.tokens) for journal in self.journals)

    @property
    def digest(self) -> str:
        """The version that has begun to answer, and answers to the end; "" before the first token."""
        return self.journals[0].question.digest if self.tokens else ""

    @property
    def prompt_tokens(self) -> int:
        """In the tokens of the version that answers."""
        return len(self.journals[0].question.prompt)

    @property
    def passed_s(self) -> float:
        """Since it arrived."""
        return time.monotonic() - self.asked.arrived_s

    @property
    def at(self) -> frozenset[int]:
        """The fence of the worker where it is, or was tried last; empty before the first."""
        return frozenset({self.place.fence}) if self.place else frozenset()

    @property
    def lost(self) -> frozenset[int]:
        """The fences of the workers that died while it was where it is now in its answers."""
        return self.retries.lost(self.tokens)

    @property
    def suspected(self) -> bool:
        """Whether so many have died that one more would be put down to it."""
        return self.retries.suspected(self.tokens)

    def wish(self) -> Wish:
        """What is asked of the scheduler next."""
        asked, begun = self.asked, self.tokens > 0
        service = asked.service.after(self.passed_s)
        return Wish(
            request_id=asked.request_id,
            model=asked.model,
            excluded=frozenset(self.retries.excluded),
            current_only=self.current_only,
            service=replace(service, first_token_s=None) if begun else service,
            prompt_tokens=self.prompt_tokens + self.tokens,
            digest=self.digest,
        )

    async def begin_at(self, place: Placement) -> None:
        """Answers that have begun go on; others are to be in the tokens of the version there. Raises NotByThisVersion,
        and Unsuitable for a version that did not begin them."""
        self.place = place
        if not self.digest:
            self.strands = self._strands(await self._prepared(place.digest))
        elif place.digest != self.digest:
            raise Unsuitable(
                f"the version of {self.asked.model!r} that began this answer runs nowhere any more; send it anew",
                reason="VERSION_GONE",
            )

    def handover(self, numerics: str) -> Handover:
        """Of answers that have begun, to a replica of that fingerprint."""
        former, self.numerics = self.numerics, numerics
        return Handover("worker lost", MoveKind.REBUILT, exact=are_exact(former, numerics))

    def failed(self, error: MeshError, *, company: bool) -> float:
        """Seconds until the next try; raises the error when that would not help. `company`: see Retries.after."""
        if "worker" not in error.metadata or self.place is None:
            raise error
        return self.retries.after(error, self.place.fence, self.tokens, company=company)

    def _strands(self, prepared: Prepared) -> list[Strand]:
        return [Strand(index, journal, prepared, self.asked.stops) for index, journal in enumerate(self.journals)]

    async def _prepared(self, digest: str) -> Prepared:
        if digest == self.asked.prepared.question.digest:
            return self.asked.prepared
        try:
            return await self.asked.prepare(digest)
        except MeshError as error:
            if self.current_only:
                raise
            raise NotByThisVersion from error
