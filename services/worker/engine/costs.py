"""What it costs to get KV back: by copying it, or by computing it again. Learnt from what both have taken here."""

from dataclasses import dataclass

WEIGHT = 0.25  # of the newest observation


@dataclass(slots=True)
class Costs:
    """Seconds a token of prefill, and a byte copied between pool and host memory."""

    token_s: float = 0.0  # nothing is preempted before something was computed
    byte_s: float = 1 / 4e9  # until the first copy tells

    def computed(self, tokens: int, took_s: float) -> None:
        """A step took so long for so many tokens."""
        self.token_s = took_s / tokens if not self.token_s else _toward(self.token_s, took_s / tokens)

    def copied(self, count_bytes: int, took_s: float) -> None:
        """Copying so many bytes took so long."""
        self.byte_s = _toward(self.byte_s, took_s / count_bytes)

    def swap_pays(self, count_bytes: int, lost_tokens: int) -> bool:
        """Whether copying out and back is cheaper than computing what would be lost."""
        return 2 * count_bytes * self.byte_s < lost_tokens * self.token_s


def _toward(mean: float, value: float) -> float:
    return mean + WEIGHT * (value - mean)
