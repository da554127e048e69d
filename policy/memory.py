"""Device memory of all workers: an account for each, and the workers in order of what they have."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """The memory of one worker, in bytes."""

    free_bytes: int = 0  # what replicas, and what the facts do not show yet of loads under way, leave; may be negative
    leaving_bytes: int = 0  # that unloads under way will give back
    claimed_bytes: int = 0  # of what leaves: others wait for it already
    idle_bytes: int = 0  # of replicas that may be unloaded

    @property
    def coming_bytes(self) -> int:
        """What will be free, and for anybody, when all unloads under way have ended."""
        return self.free_bytes + self.leaving_bytes - self.claimed_bytes

    @property
    def room_bytes(self) -> int:
        """What could be free, were all that is idle unloaded."""
        return self.free_bytes + self.leaving_bytes - self.claimed_bytes + self.idle_bytes


NOTHING = Account()


class Memory:
    """Kept by the index, which knows what the accounts are."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._by_free: list[tuple[int, str]] = []  # the most first
        self._by_room: list[tuple[int, str]] = []

    def put(self, worker_id: str, account: Account) -> bool:
        """What a worker has from now on. Returns whether somebody may find room there who found none before."""
        before = self.accounts.get(worker_id)
        if before == account:
            return False
        self.drop(worker_id)
        self.accounts[worker_id] = account
        insort(self._by_free, (-account.free_bytes, worker_id))
        insort(self._by_room, (-account.room_bytes, worker_id))
        return before is None or account.room_bytes > before.room_bytes

    def drop(self, worker_id: str) -> None:
        """A worker has gone, or its account is about to change."""
        if account := self.accounts.pop(worker_id, None):
            del self._by_free[bisect_left(self._by_free, (-account.free_bytes, worker_id))]
            del self._by_room[bisect_left(self._by_room, (-account.room_bytes, worker_id))]

    def account(self, worker_id: str) -> Account:
        """Of a worker; of one that nobody knows, nothing."""
        return self.accounts.get(worker_id, NOTHING)

    def freest(self, least_bytes: int) -> Iterator[str]:
        """Workers with at least so much free, those with the most first."""
        return _down_to(self._by_free, least_bytes)

    def roomiest(self, least_bytes: int) -> Iterator[str]:
        """Workers that could have so much free, those with the most first."""
        return _down_to(self._by_room, least_bytes)


def _down_to(order: list[tuple[int, str]], least_bytes: int) -> Iterator[str]:
    for negative, worker_id in order:
        if -negative < least_bytes:
            return
        yield worker_id
