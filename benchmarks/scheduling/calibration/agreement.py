"""How far the simulator is from what happened. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.scheduling.calibration.asking import Seen
from mesh.requests import StartKind
from sim.outcome import Run


@dataclass(frozen=True, slots=True)
class Side:
    """Times to first token of one side, in seconds."""

    mean_s: float
    p50_s: float
    p99_s: float
    starts: int  # requests that found no replica; of the simulated side, loads


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both sides, over the same requests."""

    requests: int
    real: Side
    simulated: Side

    @property
    def mean(self) -> float:
        """Simulated over real."""
        return self.simulated.mean_s / self.real.mean_s

    @property
    def p99(self) -> float:
        """Simulated over real."""
        return self.simulated.p99_s / self.real.p99_s

    def text(self) -> str:
        """A line for each side and one for the ratios."""
        sides = (("real", self.real), ("simulated", self.simulated))
        lines = [
            f"{name:10} mean {one.mean_s:.3f} s  p50 {one.p50_s:.3f} s  p99 {one.p99_s:.3f} s  {one.starts} cold"
            for name, one in sides
        ]
        return "\n".join([*lines, f"simulated over real: mean {self.mean:.3f}, p99 {self.p99:.3f}"])

    def json(self) -> str:
        """All figures on one line."""
        return json.dumps({"ttft_mean_ratio": self.mean, "ttft_p99_ratio": self.p99, **asdict(self)})


def agreement(seen: Sequence[Seen], run: Run, warm_up_s: float) -> Agreement:
    """Of the requests that came after the warm-up."""
    real = [one.first_s for one in seen if one.request.at_s >= warm_up_s]
    late = [one for one in run.outcomes if one.request.at_s >= warm_up_s]
    paper = [one.latency_s for one in late if one.latency_s is not None]
    cold = sum(one.start is not StartKind.WARM for one in seen if one.request.at_s >= warm_up_s)
    loads = sum(one.ready_s >= warm_up_s for one in run.loads)
    return Agreement(len(real), _side(real, cold), _side(paper, loads))


def _side(firsts: Sequence[float], starts: int) -> Side:
    p50_s, p99_s = (float(one) for one in np.quantile(firsts, (0.5, 0.99)))
    return Side(float(np.mean(firsts)), p50_s, p99_s, starts)
