"""A checkpoint on its way from a store, piece by piece. How the pieces come: supply.py and passing.py."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mesh.errors import DataLoss
from mesh.facts import Tier
from mesh.mapping import Mapping
from services.worker.loading.device import Tell


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a unit, from `offset` of it on, which stay as they are until `taken` is called, on the loop.

    `home` is the memory of this node that `data` lies in, from `start` of it on; None if the bytes crossed a network,
    so that the unit's hash is to be checked.
    """

    unit: int
    offset: int
    data: memoryview
    home: Mapping | None
    start: int
    taken: Callable[[], None]


class Source(Protocol):
    """Where pieces come from."""

    tier: Tier
    """The farthest that any come from."""
    repeatable: bool
    """Whether `pieces` may be called again."""

    def pieces(self, tell: Tell) -> AbstractAsyncContextManager[AsyncIterator[Piece]]:
        """Every byte of every unit once; a unit's pieces come in order. `tell` hears how it goes.

        What pieces lie in may be given back when the context closes. Raises NoRoom, DataLoss, Unreachable, Broken.
        """


def bad_stream(problem: str) -> DataLoss:
    """A store's answer that makes no sense."""
    return DataLoss(f"the store's bytes cannot be used: {problem}", reason="BAD_STREAM")


def nothing() -> None:
    """Who gave the piece does not wait for it."""
