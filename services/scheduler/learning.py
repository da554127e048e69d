"""What each load teaches: it is compared with what was thought, counted, and learnt from."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Histogram

from mesh.clock import Clock
from mesh.facts import ClusterFacts
from policy.actions import Load
from policy.books import Books
from policy.estimate import unloading
from policy.knobs import Knobs
from policy.start import hauled
from policy.underway import Lesson
from policy.view import Spot

log = structlog.get_logger()
KEPT = 200  # lessons, for who asks
SECONDS = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300)
PREDICTED = Histogram("whimbrel_load_predicted_seconds", "What loads were thought to take.", ["tier"], buckets=SECONDS)
ACTUAL = Histogram("whimbrel_load_actual_seconds", "What those loads took.", ["tier"], buckets=SECONDS)
ERROR = Histogram(
    "whimbrel_load_error_seconds", "How far off that was, one way or the other.", ["tier"], buckets=SECONDS
)
PROMISED = Counter("whimbrel_load_promises_total", "Loads, by whether their P90 was kept.", ["tier", "kept"])


@dataclass(frozen=True, slots=True)
class Learning:
    """Of one leadership."""

    books: Books
    clock: Clock
    knobs: Knobs
    lessons: deque[Lesson] = field(default_factory=lambda: deque(maxlen=KEPT))

    def begins(self, action: Load, facts: ClusterFacts) -> None:
        """A load is commanded."""
        if load := hauled(facts, action):
            self.books.loads.begin(action.spot, load, self.clock.now(), self.books.rates, self.knobs)

    def progressed(self, spot: Spot, done_bytes: int) -> None:
        """So many of its bytes are there."""
        self.books.loads.progressed(spot, done_bytes, self.clock.now())

    def done(self, spot: Spot) -> None:
        """The replica is ready, as the facts show."""
        lesson = self.books.loads.done(spot, self.clock.now(), self.books.rates, self.knobs)
        if lesson is None:
            return
        self.lessons.append(lesson)
        _count(lesson)

    def ended(self, spot: Spot) -> None:
        """The load is over; one that is not done has failed, or nobody wanted it any more."""
        self.books.loads.end(spot)

    def unloaded(self, node: str, took_s: float) -> None:
        """A replica's memory is free, as the facts show."""
        self.books.rates.saw([unloading(node, self.knobs)], took_s)

    def of_model(self, model: str) -> Iterable[Lesson]:
        """What its loads have taught, the newest first."""
        return (lesson for lesson in reversed(self.lessons) if lesson.spot.model == model)


def _count(lesson: Lesson) -> None:
    tier, thought = lesson.farthest, lesson.predicted
    PREDICTED.labels(tier).observe(thought.mean_s)
    ACTUAL.labels(tier).observe(lesson.took_s)
    ERROR.labels(tier).observe(abs(lesson.took_s - thought.mean_s))
    PROMISED.labels(tier, "yes" if lesson.took_s <= thought.p90_s else "no").inc()
