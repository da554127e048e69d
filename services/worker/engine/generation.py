"""One request inside the engine, whichever runner it is on."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.requests import FinishReason
from services.worker.engine.guide import Following
from services.worker.engine.request import EngineRequest


@dataclass(slots=True, eq=False)
class Generation:
    """Its tokens are the truth; whatever else a runner keeps of it can be made from them again."""

    request: EngineRequest
    tokens: list[int]  # prompt, then generated
    limit: int  # it ends when it has this many tokens
    stops: frozenset[int]
    following: Following | None = field(init=False)  # of a guided one: how far its answer has come

    def __post_init__(self) -> None:
        self.following = self.request.grammar.follow() if self.request.grammar else None

    @property
    def prompt_len(self) -> int:
        """Tokens that the client gave."""
        return len(self.request.prompt_ids)

    @property
    def generated(self) -> int:
        """Tokens generated so far, here or elsewhere."""
        return len(self.tokens) - self.prompt_len

    @property
    def answer(self) -> list[int]:
        """The generated tokens."""
        return self.tokens[self.prompt_len :]

    @property
    def finish(self) -> FinishReason | None:
        """How it has ended, if it has: by its newest token, which must be a generated one."""
        if self.tokens[-1] in self.stops or (self.following and self.following.complete(self.answer)):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.tokens) >= self.limit else None


def asking(generations: Iterable[Generation], name: str) -> int:
    """How many of them ask for a replica or an adapter of this name; all, if it is empty. Any thread."""
    return sum(not name or generation.request.replica == name for generation in tuple(generations))
