"""Latencies of the matrix, drawn: for each case, the share of requests that had their first token in time."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.scheduling.matrix.cells import CENTILES, Found


def draw(found: Iterable[Found], directory: Path) -> None:
    """<case>.svg, of the quantiles' means over seeds."""
    directory.mkdir(parents=True, exist_ok=True)
    by_case: defaultdict[str, defaultdict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        by_case[one.cell.case][one.cell.policy].append(one.quantiles_s)
    with mpl.rc_context({"svg.hashsalt": "whimbrel"}):
        for case, policies in by_case.items():
            figure = Figure(figsize=(7, 4), layout="constrained")
            axes = figure.subplots()
            for name, rows in policies.items():
                axes.plot(np.mean(rows, 0), np.array(CENTILES) / 100.0, label=name)
            axes.set(xscale="log", xlabel="seconds from arrival to the first token", ylabel="share of requests")
            axes.legend(fontsize="x-small")
            figure.savefig(directory / f"{case}.svg", metadata={"Date": None})
