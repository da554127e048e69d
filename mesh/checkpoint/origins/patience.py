"""How long a source that fails is asked again: bounded in number and time, the same for all of them."""

import random
from collections.abc import Iterator

RETRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0  # in all at most 16 s
CONNECT_S, SILENCE_S = 5.0, 30.0  # for a connection; between two bytes of an answer
ANSWER_S = 300.0  # for one answer: 32 MiB at 110 kB/s
PIECE_BYTES = 32 << 20  # asked for at once


def waits() -> Iterator[float]:
    """The seconds to wait before each retry, spread so that many readers do not come back together."""
    wait = FIRST_WAIT_S
    for _ in range(RETRIES):
        yield wait * random.uniform(0.5, 1)
        wait = min(2 * wait, LONGEST_WAIT_S)
