"""A replica's generations by what they do now: run, wait for their turn, or stand still while they are moved."""

from collections import deque

from services.worker.engine.batch import Paged
from services.worker.engine.errors import UnknownRequest


class Roster:
    """Each generation is in one of the three. Those standing still keep their blocks, and get no step."""

    def __init__(self) -> None:
        self.running: list[Paged] = []  # in order of arrival
        self.waiting: deque[Paged] = deque()
        self.paused: list[Paged] = []

    @property
    def everyone(self) -> list[Paged]:
        """All of them."""
        return [*self.running, *self.waiting, *self.paused]

    def take(self, request_id: str) -> Paged | None:
        """The generation of a request, which is here no more; None if it was not."""
        for generation in self.everyone:
            if generation.request.request_id == request_id:
                self.remove(generation)
                return generation
        return None

    def find(self, request_id: str) -> Paged:
        """The generation of a request; UnknownRequest if it is not here (any more)."""
        for generation in self.everyone:
            if generation.request.request_id == request_id:
                return generation
        raise UnknownRequest(f"request {request_id} does not run here; it may have ended")

    def remove(self, generation: Paged) -> None:
        """Forget one, wherever it is."""
        next(place for place in (self.running, self.waiting, self.paused) if generation in place).remove(generation)

    def admit(self) -> Paged:
        """Let the first of those that wait run."""
        generation = self.waiting.popleft()
        self.running.append(generation)
        return generation

    def give_way(self, generation: Paged) -> None:
        """Have one that runs wait, before all that wait already."""
        self.running.remove(generation)
        self.waiting.appendleft(generation)

    def pause(self, generation: Paged) -> None:
        """Have one stand still; one that does already goes on doing so."""
        self.remove(generation)
        self.paused.append(generation)

    def resume(self, generation: Paged) -> None:
        """Have it go on: with its blocks at once, without any as the first of those that wait."""
        self.remove(generation)
        self.go_on(generation)

    def go_on(self, generation: Paged) -> None:
        """Have one that comes from elsewhere run, if it has blocks, or wait before all others."""
        if generation.table.blocks:
            self.running.append(generation)
        else:
            self.waiting.appendleft(generation)
