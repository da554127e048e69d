"""What a replica can take at all."""

from collections.abc import Sequence

from services.worker.engine.errors import EmptyPrompt, PromptTooLong, TokenOutOfRange


def check_tokens(tokens: Sequence[int], vocabulary: int, most: int | None) -> None:
    """Raises RequestRefused if there are none, more than `most`, or any outside the vocabulary."""
    if not tokens:
        raise EmptyPrompt("there are no tokens; send at least one")
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise TokenOutOfRange(f"tokens must be from 0 to {vocabulary - 1}")
    if most is not None and len(tokens) > most:
        raise PromptTooLong(f"{len(tokens)} tokens are more than the {most} positions that the model has")
