"""Device memory of all workers: an account for each, and the workers in order of what they have."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, TypeVar, final

Roomy = tuple[int, str]  # a worker behind its bytes, which are negative: the most comes first
Loaded = tuple[int, int, str]  # a worker behind the loads under way there, and then what is free, negative
T = TypeVar("T", Roomy, Loaded)
NO_ROOM: list[Roomy] = []
NOBODY: list[Loaded] = []


@final
class Account:
    """The memory of one worker, in bytes. `free_bytes` is what replicas leave, and what the facts do not show yet of
    loads under way; it may be negative. `leaving_bytes` is what unloads under way will give back, `claimed_bytes` what
    others wait for of that, `idle_bytes` what may be unloaded; `coming_bytes` is for anybody once these have ended,
    `room_bytes` were all that is idle unloaded, too."""

    __slots__ = ("claimed_bytes", "coming_bytes", "free_bytes", "idle_bytes", "leaving_bytes", "room_bytes")

    def __init__(
        self, *, free_bytes: int = 0, leaving_bytes: int = 0, claimed_bytes: int = 0, idle_bytes: int = 0
    ) -> None:
        self.free_bytes: Final = free_bytes
        self.leaving_bytes: Final = leaving_bytes
        self.claimed_bytes: Final = claimed_bytes
        self.idle_bytes: Final = idle_bytes
        self.coming_bytes: Final = free_bytes + leaving_bytes - claimed_bytes
        self.room_bytes: Final = self.coming_bytes + idle_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Account{self._key()}"

    def _key(self) -> tuple[int, int, int, int]:
        return self.free_bytes, self.leaving_bytes, self.claimed_bytes, self.idle_bytes


NOTHING = Account()


@final
class Place:
    """Where a worker stands among the others, and among those of its node."""

    __slots__ = ("free", "loaded", "node", "room")

    def __init__(self, worker_id: str, node: str, account: Account, loads: int) -> None:
        self.node: Final = node
        self.free: Final[Roomy] = (-account.free_bytes, worker_id)
        self.room: Final[Roomy] = (-account.room_bytes, worker_id)
        self.loaded: Final[Loaded] = (loads, -account.free_bytes, worker_id)


class Memory:
    """Kept by the index, which knows what the accounts are."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._places: dict[str, Place] = {}
        self._by_free: list[Roomy] = []
        self._by_room: list[Roomy] = []
        self._loaded: dict[str, list[Loaded]] = {}  # by node
        self._roomy: dict[str, list[Roomy]] = {}  # by node

    def put(self, worker_id: str, node: str, account: Account, loads: int) -> bool:
        """What a worker has from now on, and how many loads are under way there. Returns whether somebody may find room
        there who found none before."""
        before = self.accounts.get(worker_id)
        old = self._places.get(worker_id)
        if old and old.node != node:
            self.drop(worker_id)
            old = None
        if old and before == account and old.loaded[0] == loads:
            return False
        new = self._places[worker_id] = Place(worker_id, node, account, loads)
        self.accounts[worker_id] = account
        if old is None or old.loaded != new.loaded:
            _shift(self._loaded.setdefault(node, []), old.loaded if old else None, new.loaded)
            _shift(self._by_free, old.free if old else None, new.free)
        if old is None or old.room != new.room:
            _shift(self._roomy.setdefault(node, []), old.room if old else None, new.room)
            _shift(self._by_room, old.room if old else None, new.room)
        return before is None or account.room_bytes > before.room_bytes

    def drop(self, worker_id: str) -> None:
        """A worker has gone, or to another node."""
        self.accounts.pop(worker_id, None)
        if old := self._places.pop(worker_id, None):
            _remove(self._by_free, old.free)
            _remove(self._by_room, old.room)
            _remove(self._loaded[old.node], old.loaded)
            _remove(self._roomy[old.node], old.room)

    def account(self, worker_id: str) -> Account:
        """Of a worker; of one that nobody knows, nothing."""
        return self.accounts.get(worker_id, NOTHING)

    def least_loaded(self, node: str) -> list[Loaded]:
        """The workers of a node, those with the fewest loads and most free first. Read only."""
        return self._loaded.get(node, NOBODY)

    def roomiest_of(self, node: str) -> list[Roomy]:
        """The workers of a node, those that could have most free first. Read only."""
        return self._roomy.get(node, NO_ROOM)

    def freest(self, least_bytes: int) -> Iterator[str]:
        """Workers with at least so much free, those with the most first."""
        return _down_to(self._by_free, least_bytes)

    def roomiest(self, least_bytes: int) -> Iterator[str]:
        """Workers that could have so much free, those with the most first."""
        return _down_to(self._by_room, least_bytes)


def _shift(order: list[T], old: T | None, new: T) -> None:
    if old is not None:
        _remove(order, old)
    insort(order, new)


def _remove(order: list[T], old: T) -> None:
    del order[bisect_left(order, old)]


def _down_to(order: list[Roomy], least_bytes: int) -> Iterator[str]:
    for negative, worker_id in order:
        if -negative < least_bytes:
            return
        yield worker_id
