"""How many tokens a sequence's next pass on the opaque runner has."""

from dataclasses import dataclass
from typing import Self

from mesh.facts import NumericsLevel
from services.worker.engine.footprint import LONGEST
from services.worker.engine.numerics import Numerics
from services.worker.engine.opaque import OpaqueRunner
from services.worker.engine.opaque_proof import Proof
from services.worker.engine.opaque_sequence import Opaque


@dataclass(frozen=True, slots=True)
class OpaquePasses:
    """Of one replica."""

    replays: bool  # what is computed anew goes through the very passes of the first time
    cuts_prompts: bool  # whether the model may go on from a state with more than one token
    most_tokens: int  # that may share a pass

    @classmethod
    def of(cls, numerics: Numerics, runner: OpaqueRunner, proof: Proof, batch_tokens: int) -> Self:
        """As for generate, most models' prompts have to go in one."""
        replays = numerics.level is not NumericsLevel.FAST or runner.depends_on_length
        cuts = proof.cuts_prompts and not runner.depends_on_length
        most_tokens = 1 if numerics.chunk_tokens == 1 else batch_tokens if cuts else LONGEST
        return cls(replays, proof.cuts_prompts, most_tokens)

    def goal(self, generation: Opaque) -> int:
        """How many of its tokens are to be computed. Ahead, one is left for later; all of a prompt where passes are
        replayed, for it is computed at once."""
        if not generation.ahead:
            return len(generation.tokens)
        return 0 if self.replays and not generation.generated else len(generation.tokens) - 1

    def count(self, generation: Opaque) -> int:
        """How many tokens its next one has: one, where a state is held that the model may not go on from with more."""
        if self.replays and generation.seen >= generation.prompt_len:
            return 1
        if generation.held is not None and not self.cuts_prompts:
            return 1
        end = generation.prompt_len if self.replays else self.goal(generation)
        return min(end - generation.seen, self.most_tokens)
