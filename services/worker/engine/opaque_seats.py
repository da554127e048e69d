"""Who runs, waits and is kept on the opaque runner, in as much memory as there is."""

from collections import deque
from collections.abc import Iterable

from services.worker.engine.footprint import Footprint
from services.worker.engine.opaque_sequence import Kept, Opaque

HEADROOM_TOKENS = 16  # room that one must find beside the others to begin, lest it give way again at once


class Seats:
    """At most `most` run. Caches take at most `kv_bytes`, as far as the footprint tells."""

    def __init__(self, footprint: Footprint, kv_bytes: int, most: int) -> None:
        self._footprint, self._kv_bytes, self._most = footprint, kv_bytes, most
        self.running: list[Opaque] = []  # in order of arrival
        self.waiting: deque[Opaque] = deque()
        self.kept = Kept()
        self.preemptions = 0

    @property
    def all(self) -> list[Opaque]:
        """Wherever they are."""
        return [*self.running, *self.waiting, *self.kept]

    @property
    def holding(self) -> list[Opaque]:
        """Those that have a cache, or are to get one next."""
        return [*self.running, *(one for one in self.waiting if one.held), *self.kept]

    def take(self, request_id: str) -> Opaque | None:
        """One that is here no more, wherever it was; None if it was not."""
        for home in (self.running, self.waiting):
            for one in home:
                if one.request.request_id == request_id:
                    home.remove(one)
                    return one
        return self.kept.take(request_id)

    @property
    def taken(self) -> bool:
        """Whether nobody else could run beside those that do and those that are kept."""
        return len(self.running) + len(self.kept) >= self._most

    def fits(self, generation: Opaque, beside: Iterable[Opaque]) -> bool:
        """Whether there is memory for it, and for these to grow a little."""
        return self._claim([*beside, generation], HEADROOM_TOKENS) <= self._kv_bytes

    def make_room(self) -> None:
        """Have what is kept give way, and then the youngest, until the rest can grow; then admit in order of arrival,
        while there is room."""
        while self._claim(self.holding) > self._kv_bytes and (len(self.running) > 1 or self.kept):
            if not self.kept.give_way():
                self._give_way(self.running.pop())
        while self.waiting and len(self.running) < self._most:
            next_one = self.waiting[0]
            if self.running and not self.fits(next_one, [one for one in self.holding if one is not next_one]):
                break
            self.running.append(self.waiting.popleft())

    def _give_way(self, generation: Opaque) -> None:
        generation.held, generation.seen = None, 0
        self.waiting.appendleft(generation)
        self.preemptions += 1

    def _claim(self, generations: Iterable[Opaque], more_tokens: int = 0) -> int:
        """Bytes that their caches take once their tokens are computed, and a few more."""
        ends = (min(one.limit, len(one.tokens) + more_tokens) for one in generations)
        return sum(self._footprint.bytes(end) for end in ends)
