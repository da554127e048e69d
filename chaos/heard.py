"""What a client has of one request. No network here."""

from collections import Counter
from dataclasses import dataclass, field

from whimbrel.gateway.v1 import gateway_pb2 as pb

from chaos.questions import Question


@dataclass(slots=True)
class Answer:
    """One answer as it came: every token and every text, appended."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    likeliest: list[tuple[int, ...]] = field(default_factory=list)  # the likeliest tokens in each one's place
    reason: int = 0  # why it ended: inference.v1.FinishReason
    stop_text: str = ""


class Heard:
    """All that came for a question, over as many streams as it took."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answers = [Answer() for _ in range(question.answers)]
        self.checkpoint = ""
        self.finished: pb.Finished | None = None
        self.left = False  # the client went, as it meant to
        self.failure = ""  # why it gave up
        self.out_of_turn: list[str] = []  # deltas whose seq was not the next
        self.came_back: Counter[str] = Counter()  # by the reason of the error that broke a stream

    @property
    def tokens(self) -> int:
        """Of all answers."""
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return bool(self.finished or self.left or self.failure)

    def hear(self, response: pb.GenerateResponse) -> int:
        """Notes one message; returns how many tokens were in it."""
        match response.WhichOneof("event"):
            case "started":
                self.checkpoint = response.started.checkpoint
            case "delta":
                return self._delta(response.delta)
            case "finished":
                self._finish(response.finished)
        return 0

    def received(self) -> list[pb.Received]:
        """What a client says that it has when it comes back."""
        return [pb.Received(index=index, token_ids=answer.tokens) for index, answer in enumerate(self.answers)]

    def _delta(self, delta: pb.Delta) -> int:
        answer = self.answers[delta.index]
        if delta.seq != len(answer.tokens):
            self.out_of_turn.append(f"answer {delta.index}: {delta.seq} after {len(answer.tokens)} tokens")
        answer.tokens.extend(delta.token_ids)
        answer.text += delta.text
        answer.likeliest.extend(tuple(top.token_id for top in one.top) for one in delta.logprobs)
        limit = self.question.leaves_after
        self.left = limit is not None and len(answer.tokens) >= limit
        return len(delta.token_ids)

    def _finish(self, finished: pb.Finished) -> None:
        self.finished = finished
        for answer, end in zip(self.answers, finished.answers, strict=True):
            answer.reason, answer.stop_text = end.finish_reason, end.stop_text
