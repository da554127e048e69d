"""The cells of the matrix of cases, policies and seeds: how each is written down, and what they come to together."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from benchmarks.scheduling.experiments import FIGURES, PAPER, Experiment
from sim.compare import BOUNDS, OURS
from sim.report import Figures

CENTILES = (*range(100), 99.5, 99.9, 100)  # of a run's latencies, which its line keeps


class Cell(NamedTuple):
    """One run."""

    case: str
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a run came to. Quantiles are of its latencies, in seconds, at CENTILES."""

    cell: Cell
    figures: Figures
    quantiles_s: tuple[float, ...]
    processor_s: float


def write(file: TextIO, found: Found) -> None:
    """A line, at once."""
    rounded = [round(one, 4) for one in found.quantiles_s]
    more = {"figures": asdict(found.figures), "quantiles_s": rounded, "processor_s": round(found.processor_s, 2)}
    file.write(json.dumps({**found.cell._asdict(), **more}) + "\n")
    file.flush()


def read(directory: Path) -> Iterator[Found]:
    """All that is in its files, each cell once. A line that was cut off, by whatever ended the run, counts as none."""
    seen = set[Cell]()
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            if line.endswith("}") and (found := _parsed(line)).cell not in seen:
                seen.add(found.cell)
                yield found


def experiments(found: Iterable[Found]) -> list[Experiment]:
    """By case, over the seeds that all of its policies have had; ours come first."""
    by_case: defaultdict[str, dict[str, dict[int, Figures]]] = defaultdict(dict)
    for one in found:
        by_case[one.cell.case].setdefault(one.cell.policy, {})[one.cell.seed] = one.figures
    return [made for case, policies in by_case.items() if (made := _experiment(case, policies))]


def summary(compared: Sequence[Experiment]) -> str:
    """A line for each case: ours, the best other by either figure, the paper's policy, and the gap that is closed."""
    return "\n".join(
        ["case | seeds | figure | ours | best other | the paper's over ours | gap closed | ahead of us"]
        + [_line(one, key) for one in compared for key in FIGURES]
    )


def _line(one: Experiment, key: str) -> str:
    means = {name: sum(getattr(row, key) for row in rows) / len(rows) for name, rows in one.rows.items()}
    others = [name for name in means if name not in (OURS, *BOUNDS)]
    best = min(others, key=means.__getitem__)
    paper = one.times_ours(PAPER, key).text(2) if PAPER in one.rows else "-"
    gap = one.gaps_closed().get(key)
    cells = (
        one.scenario,
        str(len(one.rows[OURS])),
        key.removesuffix("_s"),
        f"{means[OURS]:.3f}",
        f"{best} {means[best]:.3f}",
        paper,
        "-" if gap is None else f"{gap:.3f}",
        ", ".join(one.ahead_of_us(key)) or "nobody",
    )
    return " | ".join(cells)


def _experiment(case: str, policies: dict[str, dict[int, Figures]]) -> Experiment | None:
    """None before all have had a seed, or ours is there."""
    seeds = sorted(set.intersection(*(set(of) for of in policies.values())))
    if not seeds or OURS not in policies:
        return None
    order = [OURS, *(name for name in policies if name != OURS)]
    return Experiment(case, {name: [policies[name][seed] for seed in seeds] for name in order})


def _parsed(line: str) -> Found:
    row = json.loads(line)
    cell = Cell(row["case"], row["policy"], row["seed"])
    return Found(cell, Figures(**row["figures"]), tuple(row["quantiles_s"]), row["processor_s"])
