"""Where requests are: each waits, runs in a seat, or has ended. Carries out what a policy says of requests."""

from mesh.requests import MoveKind
from policy.actions import RefusalReason
from policy.view import Spot
from sim.batch import Sequence
from sim.cluster import Cluster, Impossible
from sim.copying import KvCopy
from sim.engine import Engine
from sim.nodes import Replica
from sim.observer import Observer
from sim.outcome import Outcome
from sim.requests import Ongoing, Seat


class Seating:
    """Every request ends once. `waiting` is in order of arrival."""

    def __init__(self, engine: Engine, cluster: Cluster, observer: Observer) -> None:
        self._engine, self._cluster, self._observer = engine, cluster, observer
        self.waiting: dict[str, Ongoing] = {}
        self.running: dict[str, Ongoing] = {}
        self.ended: dict[str, Outcome] = {}

    def place(self, request_id: str, spot: Spot) -> None:
        """A waiting request gets a slot. Impossible if it does not wait, or none is open there."""
        one = _one(self.waiting, request_id)
        sequence = one.sequence(one.emitted_tokens, lambda: self._first(one), lambda: self._finish(one))
        self._sit(one, self._join(one, spot, sequence))
        one.start_s = self._engine.now_s if one.start_s is None else one.start_s
        self.running[one.id] = self.waiting.pop(one.id)

    def refuse(self, request_id: str, reason: RefusalReason) -> None:
        """A waiting request ends without an answer."""
        one = _one(self.waiting, request_id)
        del self.waiting[one.id]
        self.ended[one.id] = one.outcome(refused=reason, refused_s=self._engine.now_s)

    def preempt(self, request_id: str) -> None:
        """A running request waits again, with the tokens that it has."""
        one = _one(self.running, request_id)
        self._stay(one)
        seat = one.here()
        self._cluster.leave(seat.replica, seat.sequence)
        one.preemptions += 1
        self._wait(one, seat.sequence.emitted_tokens)

    def move(self, request_id: str, to: Spot, kind: MoveKind) -> None:
        """A running request runs on while its KV is copied, or computed elsewhere; then what it has gained meanwhile is
        computed there, too, and that is all the time in which it stands still. Impossible while it moves already."""
        one = _one(self.running, request_id)
        if one.goal:
            raise Impossible(f"request {one.id} moves already")
        seat = one.here()
        so_far = self._cluster.tokens(seat.replica)[seat.sequence]
        ahead = one.sequence(so_far, lambda: self._follow(one), lambda: None)
        ahead.answer_tokens += 1  # it ends nothing: only the sequence itself does
        if kind is MoveKind.KV:
            self._copy(one, to, ahead)
        else:
            one.goal = self._join(one, to, ahead)
        self._cluster.workers[seat.replica.spot.worker_id].touch()  # it is shown as leaving

    def lose(self, lost: list[Sequence]) -> None:
        """What ran there is gone: requests wait again, their tokens being in the gateways' journals."""
        ones = [self.running[sequence.id] for sequence in lost]
        for one, sequence in zip(ones, lost, strict=True):  # first those that were only on their way there
            if one.goal and sequence is one.goal.sequence:
                self._end_copy(one)
                one.goal = None
        for one, sequence in zip(ones, lost, strict=True):
            if one.seat and sequence is one.seat.sequence:
                self._stay(one)
                one.crashes += 1
                self._wait(one, sequence.emitted_tokens)

    def outcomes(self) -> list[Outcome]:
        """Of all requests, in order of arrival; those without an end are lost."""
        open_ = {one.id: one.outcome() for one in (*self.waiting.values(), *self.running.values())}
        return [outcome for _, outcome in sorted((self.ended | open_).items(), key=lambda item: int(item[0]))]

    def _copy(self, one: Ongoing, to: Spot, ahead: Sequence) -> None:
        """What comes while the first of it is on its way comes right behind it."""
        workers, seat, replica = self._cluster.workers, one.here(), self._replica(one, to)
        if not replica.model.kv_bytes_per_token:
            raise Impossible(f"nobody knows how much KV {to.model} has")
        self._cluster.expect(replica, ahead)
        one.goal = Seat(replica, ahead, self._engine.now_s)
        size = ahead.kv_tokens * replica.model.kv_bytes_per_token
        there, here = workers[to.worker_id], workers[seat.replica.spot.worker_id]
        one.copy = KvCopy(here, there, size, lambda: self._copied(one, seat, ahead))

    def _copied(self, one: Ongoing, seat: Seat, ahead: Sequence) -> None:
        """All that it has by now is there."""
        one.copy = None
        ahead.emitted_tokens = self._cluster.tokens(seat.replica)[seat.sequence]
        self._follow(one)

    def _end_copy(self, one: Ongoing) -> None:
        if one.copy:
            one.copy.end()
            one.copy = None

    def _follow(self, one: Ongoing) -> None:
        """The first round of a move is over: the request takes its seat there, with a prefill of the gap."""
        seat, goal = one.here(), one.goal
        if goal is None:
            raise Impossible(f"request {one.id} goes nowhere")
        if self._cluster.tokens(seat.replica)[seat.sequence] >= one.request.answer_tokens:
            self._stay(one)  # its last token is out at this very moment
            return
        self._cluster.leave(seat.replica, seat.sequence)
        self._stay(one)
        one.moves, one.moved_s = one.moves + 1, self._engine.now_s
        emitted = seat.sequence.emitted_tokens
        sequence = one.sequence(emitted, lambda: self._first(one), lambda: self._finish(one))
        sequence.cached_tokens = goal.sequence.kv_tokens - 1  # its own next token came from the first round's prefill
        self._sit(one, self._join(one, goal.replica.spot, sequence))

    def _join(self, one: Ongoing, spot: Spot, sequence: Sequence) -> Seat:
        replica = self._replica(one, spot)
        self._cluster.join(replica, sequence)
        return Seat(replica, sequence, self._engine.now_s)

    def _replica(self, one: Ongoing, spot: Spot) -> Replica:
        if spot.model != one.request.model:
            raise Impossible(f"request {one.id} is for {one.request.model}, not for {spot}")
        return self._cluster.replica(spot)

    def _sit(self, one: Ongoing, seat: Seat) -> None:
        one.seat, one.worker_id = seat, seat.replica.spot.worker_id

    def _stay(self, one: Ongoing) -> None:
        """It goes nowhere any more."""
        self._end_copy(one)
        if goal := one.goal:
            self._cluster.leave(goal.replica, goal.sequence)
            one.goal = None

    def _wait(self, one: Ongoing, emitted_tokens: int) -> None:
        one.wait(emitted_tokens, self._engine.now_s)
        self.waiting[one.id] = self.running.pop(one.id)
        self.waiting = dict(sorted(self.waiting.items(), key=lambda item: item[1].number))

    def _first(self, one: Ongoing) -> None:
        if one.first_s is None:
            one.first_s = self._engine.now_s

    def _finish(self, one: Ongoing) -> None:
        self._observer.answered(one.request.model, one.request.answer_tokens)
        seat = one.here()
        self._cluster.left(seat.replica, seat.sequence)
        self._stay(one)
        del self.running[one.id]
        self.ended[one.id] = one.outcome(finished_s=self._engine.now_s)


def _one(those: dict[str, Ongoing], request_id: str) -> Ongoing:
    if request_id not in those:
        raise Impossible(f"request {request_id} is not there to be acted on")
    return those[request_id]
