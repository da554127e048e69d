"""What traces have in common: rows, each of one request or of so many within some seconds."""

from dataclasses import dataclass


class BadTrace(ValueError):
    """A file is not of its format; says which, where, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Row:
    """Times are seconds from the trace's begin. Tokens are None where the trace does not say them."""

    at_s: float
    key: str = ""  # whose requests go to the same model: a function, a client; "" in a trace of one model
    span_s: float = 0.0  # they come somewhere within so many seconds from `at_s`
    count: int = 1
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    tenant: str = ""
    session: str = ""
    blocks: tuple[int, ...] = ()  # one id for each 512 tokens of the prompt


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a trace that is wanted, in seconds from its begin."""

    from_s: float = 0.0
    for_s: float = 1800.0

    def holds(self, at_s: float) -> bool:
        """Whether a moment is in it."""
        return self.from_s <= at_s < self.from_s + self.for_s
