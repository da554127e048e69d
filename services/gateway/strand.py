"""One answer of a request, as its client reads it: the journal's tokens, their text, and where it stops."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from mesh.requests import FinishReason, Sampling, TokenLogprob
from services.gateway.detokenize import Detokenizer
from services.gateway.journal import Journal, News, Question
from services.gateway.spelling import Spelling
from services.gateway.texts import Text

SEEDS = 1 << 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, checked and tokenized, for one version of its model."""

    question: Question
    text: Text


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of the answer `index`, and the text that they complete."""

    text: str
    tokens: tuple[int, ...]
    seq: int
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each of `tokens`, when asked for


class Strand:
    """Number `index` of a request's answers, by one version of its model. `running` is closed when it ends."""

    def __init__(self, index: int, journal: Journal, prepared: Prepared, stops: Iterable[str]) -> None:
        journal.rewrite(_seeded(prepared.question, index))
        self.index, self.journal = index, journal
        journal.owners.index = index
        self.running = ExitStack()
        self.seen = 0
        self.stop: str | None = None
        self.ended = False
        self._spelling = prepared.text.spelling
        self._detokenizer = Detokenizer(self._spelling, stops, prepared.question.prompt)

    @property
    def reason(self) -> FinishReason:
        """How it ended."""
        return FinishReason.STOP if self.stop is not None else self.journal.finish or FinishReason.ERROR

    def restore(self, tokens: tuple[int, ...]) -> None:
        """Begins with what its client has of it: these tokens, and the text that they complete."""
        sampling = self.journal.question.sampling
        self.journal.restore(tokens, _finish(tokens, sampling))
        self.seen, self.stop = len(tokens), self._detokenizer.feed(_visible(tokens, sampling)).stop
        self.ended = self.stop is not None or self.journal.finish is not None

    def read(self) -> Delta | None:
        """What is new, if anything is. Raises the MeshError that the answer failed with."""
        news = self.journal.news(self.seen)
        return self._delta(news) if news else None

    def _delta(self, news: News) -> Delta:
        piece = self._detokenizer.feed(_visible(news.tokens, self.journal.question.sampling))
        self.stop, shown = piece.stop, len(news.tokens) if piece.stop is None else piece.tokens
        tail = self._detokenizer.finish() if news.last and self.stop is None else ""
        likely = tuple(_named(one, self._spelling) for one in news.logprobs[:shown])
        delta = Delta(piece.text + tail, news.tokens[:shown], self.seen, self.index, likely)
        self.seen += shown
        if news.last or self.stop is not None:
            self.ended = True
            self.running.close()
        return delta


def _seeded(question: Question, index: int) -> Question:
    sampling = replace(question.sampling, seed=(question.sampling.seed + index) % SEEDS)
    return replace(question, sampling=sampling)


def _finish(tokens: Sequence[int], sampling: Sampling) -> FinishReason | None:
    """How an answer of these tokens has ended, if they show it."""
    if tokens and tokens[-1] in sampling.stop_token_ids:
        return FinishReason.STOP
    return FinishReason.LENGTH if len(tokens) >= sampling.max_tokens else None


def _visible(tokens: Iterable[int], sampling: Sampling) -> list[int]:
    """Without the tokens that end an answer: they are ids, not text."""
    ends = set(sampling.stop_token_ids)
    return [token for token in tokens if token not in ends]


def _named(likely: TokenLogprob, spelling: Spelling | None) -> TokenLogprob:
    """With the texts of the likeliest tokens, where there is a tokenizer."""
    if spelling is None:
        return likely
    return replace(likely, top=tuple(replace(one, text=spelling.alone(one.token_id)) for one in likely.top))
