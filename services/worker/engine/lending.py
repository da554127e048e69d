"""Carries out the division of KV memory among an engine's replicas, between two steps."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from services.worker.engine.kv_share import KVShare
from services.worker.engine.request import TokenStep
from services.worker.engine.shares import rebalance


@runtime_checkable
class Elastic(Protocol):
    """A replica whose KV memory can grow and shrink while it runs."""

    kv_share: KVShare


def balance(shares: Sequence[KVShare]) -> list[TokenStep]:
    """Give each what it may insist on; who has to give does so first. What that ended is returned."""
    claims = [share.claim() for share in shares]
    moves = [
        (kv_bytes - claim.share, kv_bytes, share)
        for share, claim, kv_bytes in zip(shares, claims, rebalance(claims), strict=True)
    ]
    moves.sort(key=lambda move: move[0])
    return [step for change, kv_bytes, share in moves if change for step in share.resize(kv_bytes)]
