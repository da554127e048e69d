"""Device memory of all workers: an account for each, and the workers in order of what they have."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Final, final

NUMBERS: Final = 1 << 20  # of workers
SPACE: Final = 1 << 48  # of bytes


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
NOBODY: list[int] = []


@final
class Rungs:
    """Where a worker stands: in order of what is free, of what could be, and of loads under way before what is free.
    Bytes count downwards, and of equal workers the first by name comes first: `number` is its place by name. Each is an
    integer, for they are compared a hundred times a decision."""

    __slots__ = ("free", "loaded", "loads", "node", "number", "room")

    def __init__(self, node: str, number: int, account: Account, loads: int) -> None:
        self.node: Final = node
        self.number: Final = number
        self.loads: Final = loads
        self.free: Final = number - NUMBERS * account.free_bytes
        self.room: Final = number - NUMBERS * account.room_bytes
        self.loaded: Final = NUMBERS * SPACE * loads + self.free


class Memory:
    """Kept by the index, which knows what the accounts are."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._rungs: dict[str, Rungs] = {}
        self._names: list[str] = []  # by number
        self._numbered = True  # and nobody has come or gone since
        self._by_free: list[int] = []
        self._by_room: list[int] = []
        self._loaded: dict[str, list[int]] = {}  # by node
        self._roomy: dict[str, list[int]] = {}  # by node

    def put(self, worker_id: str, node: str, account: Account, loads: int) -> bool:
        """What a worker has from now on, and how many loads are under way there. Returns whether somebody may find room
        there who found none before."""
        before, old = self.accounts.get(worker_id), self._rungs.get(worker_id)
        if before == account and old and old.node == node and old.loads == loads:
            return False
        new = self._rungs[worker_id] = Rungs(node, old.number if old else 0, account, loads)
        self.accounts[worker_id] = account
        if old is None or old.node != node:
            self._numbered = False
        elif self._numbered:
            self._climb(old, new)
        return before is None or account.room_bytes > before.room_bytes

    def drop(self, worker_id: str) -> None:
        """A worker has gone."""
        if self.accounts.pop(worker_id, None):
            del self._rungs[worker_id]
            self._numbered = False

    def account(self, worker_id: str) -> Account:
        """Of a worker; of one that nobody knows, nothing."""
        return self.accounts.get(worker_id, NOTHING)

    def least_loaded(self, node: str) -> Iterator[str]:
        """The workers of a node, those with the fewest loads and most free first."""
        self._number()
        for rung in self._loaded.get(node, NOBODY):
            yield self._names[rung % NUMBERS]

    def roomiest_of(self, nodes: Iterable[str], least_bytes: int) -> Iterator[str]:
        """Workers of some nodes that could have so much free, those with the most first."""
        self._number()
        order = list[int]()
        for node in nodes:
            order += self._roomy.get(node, NOBODY)
        return self._down_to(sorted(order), least_bytes)

    def freest(self, least_bytes: int) -> Iterator[str]:
        """Workers with at least so much free, those with the most first."""
        self._number()
        return self._down_to(self._by_free, least_bytes)

    def roomiest(self, least_bytes: int) -> Iterator[str]:
        """Workers that could have so much free, those with the most first."""
        self._number()
        return self._down_to(self._by_room, least_bytes)

    def _down_to(self, order: list[int], least_bytes: int) -> Iterator[str]:
        for rung in order:
            number = rung % NUMBERS
            if (number - rung) // NUMBERS < least_bytes:
                return
            yield self._names[number]

    def _climb(self, old: Rungs, new: Rungs) -> None:
        if old.loaded != new.loaded:
            _shift(self._by_free, old.free, new.free)
            _shift(self._loaded[new.node], old.loaded, new.loaded)
        if old.room != new.room:
            _shift(self._by_room, old.room, new.room)
            _shift(self._roomy[new.node], old.room, new.room)

    def _number(self) -> None:
        """Numbers the workers anew once some have come or gone: seldom, and all at once."""
        if self._numbered:
            return
        self._numbered, self._names = True, sorted(self._rungs)
        self._loaded, self._roomy = {}, {}
        for number, name in enumerate(self._names):
            one = self._rungs[name]
            one = self._rungs[name] = Rungs(one.node, number, self.accounts[name], one.loads)
            self._loaded.setdefault(one.node, []).append(one.loaded)
            self._roomy.setdefault(one.node, []).append(one.room)
        self._by_free = sorted([one.free for one in self._rungs.values()])
        self._by_room = sorted([one.room for one in self._rungs.values()])
        for order in (*self._loaded.values(), *self._roomy.values()):
            order.sort()


def _shift(order: list[int], old: int, new: int) -> None:
    del order[bisect_left(order, old)]
    insort(order, new)
