"""Replicas that take nothing new, so that their memory comes free for a version whose requests go before theirs. A
queue in order is not enough: whoever is served without a pause never leaves. Kept by Books; decide only reads it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.facts import Priority
from policy.seat import Running
from policy.spot import Spot


class User(NamedTuple):
    """Whose requests run, and in which band they came."""

    tenant: str
    priority: Priority


@dataclass(slots=True)
class Yielding:
    """Which replica yields to which. `users` are those of all requests that run."""

    to: dict[Spot, Spot] = field(default_factory=dict)
    users: Counter[User] = field(default_factory=Counter)

    def sat(self, run: Running) -> None:
        """A request runs."""
        self.users[User(run.tenant, run.priority)] += 1

    def rose(self, run: Running) -> None:
        """It runs no more."""
        user = User(run.tenant, run.priority)
        self.users[user] -= 1
        if not self.users[user]:
            del self.users[user]

    def add(self, spots: Iterable[Spot], to: Spot) -> None:
        """It has been decided on."""
        self.to.update(dict.fromkeys(spots, to))

    def drop(self, spots: Iterable[Spot]) -> None:
        """They take requests again, or are gone."""
        for spot in spots:
            self.to.pop(spot, None)
