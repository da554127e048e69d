"""What relay.py tells the engine's process, and what that answers. No torch here."""

from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts to be answered at once, with this many tokens each."""

    prompts: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Elapsed:
    """What a batch took, from its first submit to its last token."""

    elapsed_s: float
    tokens: int


BATCH: TypeAdapter[Batch] = TypeAdapter(Batch)
ELAPSED: TypeAdapter[Elapsed] = TypeAdapter(Elapsed)
