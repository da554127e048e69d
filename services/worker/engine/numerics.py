"""The numerics levels as the engine executes them: how many rows a forward pass has, and where prompts are cut.
What each promises, and why this keeps it, is told in docs/numerics.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mesh.facts import NumericsLevel


@dataclass(frozen=True, slots=True)
class Numerics:
    """A level's measures. A product of matrices gives a row the same bits whatever the other rows are, but not
    whatever their number is: so tokens are computed in passes of equal size, or in chunks of their own."""

    level: NumericsLevel
    tile: int = 0  # rows of each pass over single tokens; 0: as many as there are
    chunk_tokens: int = 0  # a prompt is cut at multiples of this, each chunk alone in its pass; 0: anywhere

    @property
    def cuts_prompts(self) -> bool:
        """Whether a prompt's chunks are passes of their own, and its answer's tokens are single ones."""
        return self.chunk_tokens > 1

    def end_after(self, end: int, prompt_len: int) -> int:
        """The first place from position `end` on at which a step may leave off."""
        if not self.cuts_prompts or end >= prompt_len:
            return end
        return min(-(-end // self.chunk_tokens) * self.chunk_tokens, prompt_len)

    def end_before(self, end: int, prompt_len: int) -> int:
        """The last place up to position `end` at which a step may leave off."""
        if not self.cuts_prompts or end >= prompt_len:
            return end
        return end // self.chunk_tokens * self.chunk_tokens

    def shareable(self, tokens: int, prompt_len: int) -> int:
        """How many of the leading `tokens` have KV that any other sequence beginning with them would compute too."""
        if not self.cuts_prompts:
            return tokens
        return min(tokens, prompt_len) // self.chunk_tokens * self.chunk_tokens


FAST = Numerics(NumericsLevel.FAST)
LEVELS: Mapping[NumericsLevel, Numerics] = MappingProxyType(
    {
        NumericsLevel.FAST: FAST,
        NumericsLevel.BATCH_INVARIANT: Numerics(NumericsLevel.BATCH_INVARIANT, tile=16, chunk_tokens=128),
        NumericsLevel.PATH_INVARIANT: Numerics(NumericsLevel.PATH_INVARIANT, tile=32, chunk_tokens=1),
    }
)
