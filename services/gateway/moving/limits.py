"""What a move may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MoveLimits:
    """Of each answer that moves."""

    stop_s: float = 0.25  # that it stands still, before its source is given it back
    whole_s: float = 120.0  # until it stands still, or its target is ready
    rounds: int = 4  # of having tokens computed that came meanwhile
    largest_gap: int = 32  # tokens that the target may have to compute once it is granted
