"""Carries out the division of KV memory among an engine's replicas, between two steps."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from services.worker.engine.request import TokenStep
from services.worker.engine.shares import Claim, rebalance


@runtime_checkable
class Elastic(Protocol):
    """A replica whose KV memory can grow and shrink while it runs."""

    @property
    def presses(self) -> bool:
        """Whether it wants more than it has; asked before each of its steps."""

    def claim(self) -> Claim:
        """What it brings, has and wants."""

    def resize(self, kv_bytes: int) -> list[TokenStep]:
        """Have this share from now on."""


def balance(replicas: Sequence[Elastic]) -> list[TokenStep]:
    """Give each what it may insist on; who has to give does so first. What that ended is returned."""
    claims = [replica.claim() for replica in replicas]
    moves = [
        (share - claim.share, share, replica)
        for replica, claim, share in zip(replicas, claims, rebalance(claims), strict=True)
    ]
    moves.sort(key=lambda move: move[0])
    return [step for change, share, replica in moves if change for step in replica.resize(share)]
