"""The token log of one running request. The gateway is its sequencer and only committer: workers propose."""

import asyncio
from dataclasses import dataclass

from mesh.errors import MeshError
from mesh.requests import FinishReason, Frame, Grant, Sampling


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one version of a model: tokens, and which of them end an answer, differ with the tokenizer."""

    digest: str
    prompt: tuple[int, ...]
    sampling: Sampling


class Journal:
    """One request: what was asked of which version, under which epoch it runs, and the accepted tokens.

    A frame counts only under the current epoch and when it continues the log: an overlap is trimmed,
    what is old is dropped, and so is what would leave a gap (a grant replays it).
    """

    def __init__(self, key: str, model: str, question: Question) -> None:
        self.key, self.model, self.question = key, model, question
        self.epoch = 0
        self.tokens: list[int] = []
        self.finish: FinishReason | None = None
        self.failure: MeshError | None = None
        self.changed = asyncio.Event()

    def grant(self) -> Grant:
        """Begins a new epoch: whoever owned the request before no longer does."""
        self.epoch += 1
        self.failure = None
        asked = self.question
        return Grant(self.key, self.epoch, self.model, asked.digest, asked.prompt, tuple(self.tokens), asked.sampling)

    def rewrite(self, question: Question) -> None:
        """Asks another version of the model, in its tokens. Only before the first token: an answer is all of one."""
        assert not self.tokens
        self.question = question

    def accept(self, frame: Frame) -> bool:
        """Adds what continues the log; False when nothing of it did."""
        if frame.epoch != self.epoch or self.finish or frame.seq > len(self.tokens):
            return False
        fresh = frame.tokens[len(self.tokens) - frame.seq :]
        if not fresh and frame.finish is None:
            return False
        self.tokens.extend(fresh)
        self.finish = frame.finish
        self.changed.set()
        return True

    def fail(self, epoch: int, error: MeshError) -> None:
        """Ends this epoch with an error; one of an older epoch is ignored."""
        if epoch == self.epoch and not self.finish and not self.failure:
            self.failure = error
            self.changed.set()

    async def news(self, after: int) -> tuple[int, ...]:
        """Tokens past the first `after`, when there are any or the epoch has ended. Raises its failure."""
        while True:
            self.changed.clear()
            if len(self.tokens) > after:
                return tuple(self.tokens[after:])
            if self.finish:
                return ()
            if self.failure:
                raise self.failure
            await self.changed.wait()
