"""What engines are asked, and what they answer. Each runs in a process of its own. No torch here."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts to be answered at once, greedily, with this many tokens each, whatever they are."""

    prompts: tuple[tuple[int, ...], ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch took, from its first submit on."""

    elapsed_s: float  # to the last token of all
    cpu_s: float  # processor time of all of the process's threads until then
    first_s: tuple[float, ...]  # to the first token of each prompt
    answers: tuple[tuple[int, ...], ...]  # token ids, in the order of the prompts

    @property
    def tokens_per_s(self) -> float:
        """Generated ones, of all prompts together."""
        return sum(len(answer) for answer in self.answers) / self.elapsed_s

    @property
    def tokens_per_cpu_s(self) -> float:
        """The same for a second of processor time, which a busy machine changes little."""
        return sum(len(answer) for answer in self.answers) / self.cpu_s

    @property
    def ttft_s(self) -> float:
        """The median prompt's time to its first token."""
        return statistics.median(self.first_s)


class Watch:
    """Notes when each prompt's first token came."""

    def __init__(self, prompts: int) -> None:
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()
        self._first_s = [0.0] * prompts

    def first(self, prompt: int) -> None:
        """A token of it is there; only the first counts."""
        self._first_s[prompt] = self._first_s[prompt] or time.perf_counter() - self._began_s

    def outcome(self, answers: Sequence[Sequence[int]]) -> Outcome:
        """Everything is there."""
        return Outcome(
            elapsed_s=time.perf_counter() - self._began_s,
            cpu_s=time.process_time() - self._began_cpu_s,
            first_s=tuple(self._first_s),
            answers=tuple(tuple(answer) for answer in answers),
        )


BATCH: TypeAdapter[Batch] = TypeAdapter(Batch)
OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)
