"""What has been learnt of each source of bytes: how fast it is, and whether to leave it alone for a while."""

from dataclasses import dataclass

from mesh.clock import Clock

MEMORY_BYTES_PER_S, LOCAL_BYTES_PER_S, PEER_BYTES_PER_S, ORIGIN_BYTES_PER_S = 5e9, 2e9, 1e9, 0.2e9
"""Guesses, on the high side: who is never asked is never learnt of."""
WEIGHT_BYTES = 32 << 20  # a reading of so many bytes counts as much as everything before it
FIRST_BACKOFF_S, LAST_BACKOFF_S = 1.0, 60.0
DISTRUST_S = 600.0


@dataclass(slots=True)
class _Learnt:
    bytes_per_s: float
    failures: int = 0
    back_at_s: float = 0.0
    trusted_at_s: float = 0.0


class Rates:
    """By source. A source that fails is left alone for twice as long each time, until it delivers again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._learnt: dict[str, _Learnt] = {}

    def meet(self, source: str, prior_bytes_per_s: float) -> None:
        """Makes a source known; what has been learnt of it stays."""
        self._learnt.setdefault(source, _Learnt(prior_bytes_per_s))

    def bytes_per_s(self, source: str) -> float:
        """What is to be expected of it."""
        return self._learnt[source].bytes_per_s

    def delivered(self, source: str, count: int, took_s: float) -> None:
        """It brought `count` right bytes in that time."""
        learnt = self._learnt[source]
        learnt.bytes_per_s = blended(learnt.bytes_per_s, count, took_s)
        learnt.failures, learnt.back_at_s = 0, 0.0

    def failed(self, source: str) -> None:
        """It did not answer, or broke off."""
        learnt = self._learnt[source]
        learnt.back_at_s = self._clock.now() + min(FIRST_BACKOFF_S * 2**learnt.failures, LAST_BACKOFF_S)
        learnt.failures += 1

    def distrust(self, source: str) -> None:
        """It sent wrong bytes; right ones do not make up for that at once."""
        self._learnt[source].trusted_at_s = self._clock.now() + DISTRUST_S

    def welcome(self, source: str) -> bool:
        """Whether it may be asked while others can; those that just failed or lied come last."""
        learnt = self._learnt[source]
        return max(learnt.back_at_s, learnt.trusted_at_s) <= self._clock.now()


def blended(known_bytes_per_s: float, count: int, took_s: float) -> float:
    """The old rate and a new reading, weighed by bytes: small readings say more of the delay than of the rate."""
    weight = count / (count + WEIGHT_BYTES)
    return (1 - weight) * known_bytes_per_s + weight * count / max(took_s, 1e-6)


def worth_asking(count: int, own_bytes_per_s: float, rest_bytes: int, best_other_bytes_per_s: float) -> bool:
    """Whether a source should take `count` of the `rest_bytes` that are left: not when the best other one would bring
    all of the rest before this is done. The fastest is always worth it."""
    return count * best_other_bytes_per_s <= rest_bytes * own_bytes_per_s
