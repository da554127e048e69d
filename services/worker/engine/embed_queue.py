"""What is to be embedded on a replica: batches of like lengths, one a step, between other requests' steps."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from mesh.requests import Pooling

Tokens = Sequence[int]
Embed = Callable[[str, Sequence[Tokens], Pooling], Tensor]
Vectors = list[list[float]]


@dataclass(eq=False, slots=True)
class Job:
    """One request's inputs; `done` gets a vector for each, in their order. `name` is a replica's or an adapter's."""

    name: str
    inputs: Sequence[Tokens]
    pooling: Pooling
    done: Future[Vectors] = field(default_factory=Future)
    batches: deque[list[int]] = field(default_factory=deque)
    vectors: dict[int, list[float]] = field(default_factory=dict)
    left: bool = False  # set by the caller when it no longer wants the rest

    def advance(self, embed: Embed) -> None:
        """Embeds the next batch."""
        batch = self.batches.popleft()
        found = embed(self.name, [self.inputs[index] for index in batch], self.pooling)
        self.vectors.update(zip(batch, found.tolist(), strict=True))


class EmbedQueue:
    """The jobs of one replica, first come, first served. Only the engine's thread changes it."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    @property
    def has_work(self) -> bool:
        """Whether `advance` would do something."""
        return bool(self._jobs)

    def add(self, job: Job, batch_tokens: int) -> None:
        """Queues a job, unless its caller has left."""
        job.batches.extend(batches(job.inputs, batch_tokens))
        if job.done.set_running_or_notify_cancel():
            self._jobs.append(job)

    def advance(self, embed: Embed) -> None:
        """One batch of the first job; an error ends that job alone, and so does its caller's leaving."""
        job = self._jobs[0]
        if job.left:
            self._jobs.popleft()
            return
        try:
            job.advance(embed)
        except Exception as error:  # out of memory, a kernel's refusal: the caller hears of it
            self._jobs.popleft()
            job.done.set_exception(error)
        else:
            if not job.batches:
                self._jobs.popleft()
                job.done.set_result([job.vectors[index] for index in range(len(job.inputs))])

    def fail(self, error: Exception) -> None:
        """Ends every job."""
        while self._jobs:
            self._jobs.popleft().done.set_exception(error)


def batches(inputs: Sequence[Tokens], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of inputs, longest first, so many at once that padded to the longest they have `batch_tokens` tokens; an
    input that has more is alone."""
    order = sorted(range(len(inputs)), key=lambda index: -len(inputs[index]))
    while order:
        count = max(1, batch_tokens // len(inputs[order[0]]))
        yield order[:count]
        order = order[count:]
