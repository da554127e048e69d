"""Device memory of all workers: an account for each, and the workers in order of what they have."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, final


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
