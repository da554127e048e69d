"""A device that serves: its replicas' batches take turns on it, at equal shares."""

from collections.abc import Callable

from sim.batch import Batch, Sequence
from sim.engine import Engine, Event


class Device:
    """Batches of one worker. `turns` counts the device-seconds that each busy batch has had."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batches: list[Batch] = []
        self._turns, self._since_s = 0.0, 0.0
        self._next: Event | None = None
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Of the device, since the beginning."""
        return self._busy_s + (self._engine.now_s - self._since_s if self._busy else 0.0)

    def add(self, batch: Batch) -> None:
        """A replica is ready."""
        self._batches.append(batch)

    def remove(self, batch: Batch) -> None:
        """A replica goes that nothing runs on."""
        self._batches.remove(batch)

    def join(self, batch: Batch, sequence: Sequence) -> None:
        """A sequence begins, behind those that wait for their prefill."""
        self._advance()
        batch.queued.append(sequence)
        if not batch.busy:
            batch.begin(self._turns)
        elif batch.steps:
            batch.cut(self._turns)
        self._plan()

    def leave(self, batch: Batch, sequence: Sequence) -> None:
        """A sequence stops, with the tokens that it has; the step under way is lost to all."""
        self._advance()
        if sequence in batch.queued:
            batch.queued.remove(sequence)
        elif sequence is batch.prefilling:
            batch.prefilling = None
            batch.begin(self._turns)
        else:
            self._drop(batch, sequence)
        self._plan()

    def tokens(self, batch: Batch) -> dict[Sequence, int]:
        """How many each sequence of a batch has by now. To look changes nothing, be it a rounding."""
        steps = batch.steps_done(self._turns + self._passed)
        told = {one: one.emitted_tokens + steps for one in batch.decoding}
        return told | {one: one.emitted_tokens for one in batch.sequences() if one not in told}

    def _drop(self, batch: Batch, sequence: Sequence) -> None:
        standing = batch.steps == 0  # a prefill is under way
        batch.settle(batch.steps_done(self._turns))
        batch.decoding.remove(sequence)
        if not standing:
            batch.begin(self._turns)

    @property
    def _busy(self) -> int:
        return sum([batch.busy for batch in self._batches])

    @property
    def _passed(self) -> float:
        """Turns since the last advance."""
        busy = self._busy
        return (self._engine.now_s - self._since_s) / busy if busy else 0.0

    def _advance(self) -> None:
        self._turns, self._busy_s = self._turns + self._passed, self.busy_s
        self._since_s = self._engine.now_s

    def _plan(self) -> None:
        if self._next:
            self._next.cancel()
        busy = [batch.ends for batch in self._batches if batch.busy]
        left = max(0.0, min(busy) - self._turns) * len(busy) if busy else 0.0
        self._next = self._engine.after(left, self._end) if busy else None

    def _end(self) -> None:
        """The spans whose end has come: tells of tokens only once all of them have gone on."""
        self._advance()
        first = min(batch.ends for batch in self._batches if batch.busy)
        self._turns = max(self._turns, first)
        calls = list[Callable[[], None]]()
        for batch in [batch for batch in self._batches if batch.busy and batch.ends <= self._turns + 1e-12]:
            calls += batch.finish()
            batch.begin(self._turns)
        self._plan()
        for call in calls:
            call()
