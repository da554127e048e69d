"""Checkpoints on their way up a store's tiers, and those that would not come. Kept by Books; decide only reads it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.facts import Tier


class Copy(NamedTuple):
    """A checkpoint in a tier of a store: what is there, or should be."""

    store_id: str
    digest: str
    tier: Tier


@dataclass(slots=True)
class Copying:
    """Whoever carries prefetches out says when one begins, ends and fails. Moments are of the decider's clock."""

    under_way: set[Copy] = field(default_factory=set)
    barred_until_s: dict[tuple[str, str], float] = field(default_factory=dict)  # by store and digest; "": any digest
    news: frozenset[str] = frozenset()  # checkpoints to look at: a copy has come, or may be asked for again
    _ended: set[str] = field(default_factory=set)

    def began(self, copy: Copy) -> None:
        """A store has been asked for it."""
        self.under_way.add(copy)

    def ended(self, copy: Copy) -> None:
        """It is there, or nobody wants it any more."""
        self.under_way.discard(copy)
        self._ended.add(copy.digest)

    def bar(self, store_id: str, digest: str, until_s: float, *, whole: bool) -> None:
        """A store could not bring a checkpoint, or cannot bring any: it is left alone with it until then."""
        for one in (digest, "") if whole else (digest,):
            self.barred_until_s[store_id, one] = until_s

    def turn(self, now: float) -> None:
        """It is `now`: what has ended is news once."""
        over = [key for key, until_s in self.barred_until_s.items() if until_s <= now]
        for key in over:
            del self.barred_until_s[key]
        self.news = frozenset(self._ended.union(digest for _, digest in over if digest))
        self._ended.clear()

    def is_barred(self, store_id: str, digest: str, now: float) -> bool:
        """Whether a store should not be asked for a checkpoint yet."""
        barred_until_s = self.barred_until_s
        return any(barred_until_s.get((store_id, one), now) > now for one in ("", digest))

    def at(self, store_id: str) -> int:
        """How many are on their way into one store."""
        return sum(copy.store_id == store_id for copy in self.under_way)
