"""The token log of one running request. The gateway is its sequencer and only committer: workers propose."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mesh.errors import MeshError
from mesh.requests import FinishReason, Frame, Grant, Sampling, TokenLogprob
from services.gateway.owners import Handover, Owners

MOST_NEWS = 128  # tokens told at once: a client that has not read for a while gets them as messages of a usual size


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one version of a model: tokens, and which of them end an answer, differ with the tokenizer."""

    digest: str
    prompt: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class News:
    """Tokens that a reader of a journal has not seen, how likely each was if that was asked for, and whether the answer
    ends with them."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    last: bool


class Journal:
    """One answer: what was asked of which version, under which epoch it runs, and the accepted tokens. `changed` is set
    when there is news; the answers of one request share theirs.

    A frame counts only under the current epoch and when it continues the log: an overlap is trimmed,
    what is old is dropped, and so is what would leave a gap (a grant replays it).
    """

    def __init__(self, key: str, model: str, question: Question, changed: asyncio.Event) -> None:
        self.key, self.model, self.question = key, model, question
        self.epoch = 0
        self.owners = Owners()
        self.tokens: list[int] = []
        self._likely: list[TokenLogprob] = []  # of the tokens that were no news yet, when they are asked for
        self.finish: FinishReason | None = None
        self.failure: MeshError | None = None
        self.changed, self.over = changed, asyncio.Event()  # `over`: nothing more comes, read or not
        self.heed: Callable[[], None] = lambda: None  # called with every change
        self.held = False  # somebody mends its failures, and its reader is not told of them yet

    def grant(self, worker_id: str = "", handover: Handover | None = None, move_id: str = "") -> Grant:
        """Begins a new epoch: whoever owned the request before no longer does. `move_id` is of the move by which the
        worker knows of it."""
        self.epoch += 1
        self.failure = None
        self.owners.granted(worker_id, handover)
        return replace(self.standing(), move_id=move_id)

    def standing(self) -> Grant:
        """The request as it stands under its epoch."""
        asked = self.question
        return Grant(self.key, self.epoch, self.model, asked.digest, asked.prompt, tuple(self.tokens), asked.sampling)

    def rewrite(self, question: Question) -> None:
        """Asks another version of the model, in its tokens. Only before the first token: an answer is all of one."""
        assert not self.tokens
        self.question = question

    def restore(self, tokens: Iterable[int], finish: FinishReason | None) -> None:
        """Begins after what another gateway has accepted."""
        assert not self.epoch
        self.tokens.extend(tokens)
        self._end(finish)

    def accept(self, frame: Frame) -> bool:
        """Adds what continues the log; False when nothing of it did."""
        if frame.epoch != self.epoch or self.finish or frame.seq > len(self.tokens):
            return False
        known = len(self.tokens) - frame.seq
        fresh = frame.tokens[known:]
        if not fresh and frame.finish is None:
            return False
        self.owners.spoke(len(self.tokens))
        self.tokens.extend(fresh)
        self._likely.extend(frame.logprobs[known:])
        self._end(frame.finish)
        self._tell()
        return True

    def _end(self, finish: FinishReason | None) -> None:
        self.finish = finish
        if finish:
            self.over.set()

    def fail(self, epoch: int, error: MeshError) -> None:
        """Ends this epoch with an error; one of an older epoch is ignored."""
        if epoch == self.epoch and not self.finish and not self.failure:
            self.failure = error
            self._tell()

    def let_go(self) -> None:
        """What it fails with is its reader's again."""
        self.held = False
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.heed()

    def news(self, after: int) -> News | None:
        """What came first after the first `after` tokens, the end counted; None when nothing did. Raises its failure.

        `after` is what is known from the news before: likelihoods are told once, and not kept.
        """
        if len(self.tokens) > after or self.finish:
            end = min(len(self.tokens), after + MOST_NEWS)
            likely, self._likely = tuple(self._likely[: end - after]), self._likely[end - after :]
            if end < len(self.tokens):
                self.changed.set()
            return News(tuple(self.tokens[after:end]), likely, self.finish is not None and end == len(self.tokens))
        if self.failure and not self.held:
            raise self.failure
        return None
