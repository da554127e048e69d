"""Policies side by side in the simulator, on paired seeds: the markets, and the paper's experiments."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sim.compare import BOUND, BOUNDS, FLOOR, OURS, Sample, compare
from sim.policies import POLICIES
from sim.report import Figures, Interval, column, gap_closed, ratio, table
from sim.scenarios import MARKETS, papers

PAPER = "serverlessllm"  # the policy of ServerlessLLM's paper
LUCK = "random"
ALL = (*POLICIES, *BOUNDS)
QUICK = (OURS, PAPER, BOUND)
FIGURES = ("mean_s", "p99_s")
MARKET = "market"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A scenario's figures, of each policy by seed; ours are the first."""

    scenario: str
    rows: Mapping[str, Sequence[Figures]]

    def times_ours(self, policy: str, key: str) -> Interval:
        """How many times a figure of ours another policy's is: above 1 we are ahead."""
        return ratio(column(self.rows[OURS], key), column(self.rows[policy], key))

    def times_papers(self) -> dict[str, Interval]:
        """The same of the paper's policy, by figure; none where it was left out."""
        return {key: self.times_ours(PAPER, key) for key in FIGURES if PAPER in self.rows}

    def gaps_closed(self) -> dict[str, float]:
        """How much of the way from chance to the floor without load time we have come, by figure; none where either
        was left out."""
        ends = {LUCK, FLOOR} <= self.rows.keys()
        return {key: gap_closed(self.rows, key, OURS, LUCK, FLOOR) for key in FIGURES if ends}

    def most(self) -> dict[str, Interval]:
        """How many times what no policy is below the paper's figure is: no policy can be ahead of it by more."""
        ends = {PAPER, BOUND} <= self.rows.keys()
        return {key: ratio(column(self.rows[BOUND], key), column(self.rows[PAPER], key)) for key in FIGURES if ends}

    def ways_come(self) -> dict[str, float]:
        """How much of the way from the paper's policy to that bound we have come, by figure."""
        return {key: gap_closed(self.rows, key, OURS, PAPER, BOUND) for key in self.most()}

    def ahead_of_us(self, key: str) -> list[str]:
        """Policies with less of a figure than ours."""
        others = [name for name in self.rows if name not in (OURS, *BOUNDS)]
        return [name for name in others if self.times_ours(name, key).mean < 1.0]

    def text(self) -> str:
        """A table, who is ahead of us, and the gap."""
        behind = [f"ahead of us on {key}: {', '.join(self.ahead_of_us(key)) or 'nobody'}" for key in FIGURES]
        gaps = [f"gap closed on {key}: {closed:.3f}" for key, closed in self.gaps_closed().items()]
        ways = [
            f"the paper's over the bound on {key}: {most.text(2)}; of the way there: {self.ways_come()[key]:.3f}"
            for key, most in self.most().items()
        ]
        return "\n".join([f"\n{self.scenario}", table(self.rows), *behind, *gaps, *ways])


def scenarios(part: str) -> Iterable[str]:
    """Those of a part of the benchmark."""
    return {"market": (MARKET,), "markets": tuple(MARKETS), "paper": tuple(papers())}[part]


def experiment(
    scenario: str,
    policies: Sequence[str],
    seeds: int,
    jobs: int,
    seen: Callable[[Mapping[str, Sequence[Sample]]], None] = lambda _: None,
) -> Experiment:
    """Every policy on every seed; `seen` is shown all samples, to draw them."""
    samples = compare(scenario, policies, seeds, jobs)
    seen(samples)
    return Experiment(scenario, {name: [one.figures for one in each] for name, each in samples.items()})
