"""How long prompts and answers are: quantile tables measured on public traces, and drawing from them.

Log-normal laws fit these badly (Kolmogorov-Smirnov 0.11 to 0.21), so tables are drawn from as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.05, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Tokens at LEVELS. Below the first and above the last, lengths go on as they ended: log-linearly."""

    tokens: tuple[int, int, int, int, int, int, int]

    def at(self, levels: Floats) -> Floats:
        """Tokens at levels in [0, 1], by log-linear interpolation; at least 1."""
        known, logs = np.array(LEVELS), np.log(np.array(self.tokens, dtype=float))
        low = logs[0] + (levels - known[0]) * (logs[1] - logs[0]) / (known[1] - known[0])
        high = logs[-1] + (levels - known[-1]) * (logs[-1] - logs[-2]) / (known[-1] - known[-2])
        inner = np.interp(levels, known, logs)
        found = np.where(levels < known[0], low, np.where(levels > known[-1], high, inner))
        tokens: Floats = np.maximum(1.0, np.exp(found))
        return tokens

    def distance(self, lengths: Ints) -> float:
        """Kolmogorov-Smirnov, at the tabled lengths: how far the share of `lengths` up to one is from its level."""
        if not len(lengths):
            return 0.0
        ordered, tokens = np.sort(lengths), np.array(self.tokens)
        below = np.searchsorted(ordered, tokens, "left") / len(ordered)
        upto = np.searchsorted(ordered, tokens, "right") / len(ordered)
        levels = np.array(LEVELS)
        gaps = np.where(levels < below, below - levels, np.where(levels > upto, levels - upto, 0.0))
        return float(gaps.max())


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompts and answers of one kind of use. They are drawn independently: on the traces their rank correlation lies
    between -0.02 and 0.07."""

    prompt: Quantiles
    answer: Quantiles
    source: str

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
        """Tokens of `count` prompts and answers."""
        prompts, answers = self.prompt.at(rng.random(count)), self.answer.at(rng.random(count))
        return np.rint(prompts).astype(np.int64), np.rint(answers).astype(np.int64)


def _log_normal(median: float, sigma: float) -> Quantiles:
    """The table of a log-normal law."""
    normal = (-1.6449, -0.6745, 0.0, 0.6745, 1.2816, 1.6449, 2.3263)
    first, *rest = (max(1, round(median * float(np.exp(sigma * z)))) for z in normal)
    return Quantiles((first, *rest))  # type: ignore[arg-type]  # seven of them


TABLES: Mapping[str, Lengths] = MappingProxyType(
    {
        "azure-conv": Lengths(
            Quantiles((181, 396, 1020, 1189, 2735, 4083, 4142)),
            Quantiles((41, 85, 129, 395, 424, 451, 601)),
            "Azure LLM inference trace 2023, conversation",
        ),
        "azure-code": Lengths(
            Quantiles((75, 578, 1469, 2745, 5188, 7303, 7436)),
            Quantiles((6, 9, 13, 24, 55, 90, 251)),
            "Azure LLM inference trace 2023, code",
        ),
        "mooncake-conv": Lengths(
            Quantiles((901, 2307, 6909, 15367, 27367, 39551, 85400)),
            Quantiles((10, 157, 350, 472, 597, 698, 1119)),
            "Mooncake FAST'25 trace, conversation",
        ),
        "servegen-large": Lengths(
            Quantiles((63, 390, 682, 1092, 2365, 2402, 5435)),
            Quantiles((1, 10, 67, 180, 458, 588, 901)),
            "ServeGen, large models",
        ),
        "servegen-mid": Lengths(
            Quantiles((132, 145, 172, 241, 626, 817, 3128)),
            Quantiles((5, 16, 36, 61, 95, 134, 355)),
            "ServeGen, middle-sized models",
        ),
        "servegen-r1": Lengths(
            Quantiles((13, 61, 260, 797, 2410, 7360, 23817)),
            Quantiles((235, 432, 736, 1462, 3509, 5712, 12333)),
            "ServeGen, reasoning models",
        ),
        # Stand-ins, no measurements, for the sets of ServerlessLLM's evaluation (OSDI'24); answers of the second take
        # 3.7 times as long.
        "gsm8k-like": Lengths(_log_normal(60, 0.4), _log_normal(90, 0.5), "a stand-in for GSM8K"),
        "sharegpt-like": Lengths(_log_normal(160, 1.1), _log_normal(229, 1.0), "a stand-in for ShareGPT"),
    }
)
