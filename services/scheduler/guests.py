"""Requests at the scheduler, from their first moment to their last, whether they wait, run, or go from one worker to
another."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh.moves import Relocation


@dataclass(frozen=True, slots=True)
class Guest:
    """One request. `relocate` tells its gateway that it is to go on elsewhere."""

    number: str  # ours
    request_id: str  # the client's, and perhaps not of this request alone
    model: str
    tenant: str
    since_s: float
    relocate: Callable[[Relocation], None]
    stays: bool = False  # it cannot go on elsewhere
