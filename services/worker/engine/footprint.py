"""How much memory a sequence's cache takes, as a function of its tokens."""

from bisect import bisect_right
from dataclasses import dataclass

LONGEST = 2**31 - 1  # tokens


@dataclass(frozen=True, slots=True)
class Growth:
    """What each token adds, up to `window` tokens; None: without end."""

    token_bytes: int
    window: int | None = None

    def bytes(self, tokens: int) -> int:
        """Of so many tokens."""
        return self.token_bytes * (tokens if self.window is None else min(tokens, self.window))


@dataclass(frozen=True, slots=True)
class Footprint:
    """`fixed_bytes` however long the sequence is, and what grows with it."""

    fixed_bytes: int
    grows: tuple[Growth, ...] = ()

    def bytes(self, tokens: int) -> int:
        """Of a sequence of so many tokens."""
        return self.fixed_bytes + sum(growth.bytes(tokens) for growth in self.grows)

    def tokens_in(self, budget_bytes: int) -> int:
        """The longest sequence that fits, at most LONGEST; 0 if none does."""
        return max(0, bisect_right(range(LONGEST + 1), budget_bytes, key=self.bytes) - 1)
