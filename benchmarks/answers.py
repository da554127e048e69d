"""The answers of a process that obeys lines. Runs in the peers' environments too: the standard library alone."""

import os
from typing import IO


def answers_only() -> IO[str]:
    """Standard output, for answers alone: what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers
