"""Pictures of figures, as PNG, with matplotlib: pip install -e .[bench]."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.loading.cold import OURS, VERIFIED
from benchmarks.loading.contest import Result
from benchmarks.loading.report import Figures

OURS_COLOUR, THEIRS_COLOUR, LIMIT_COLOUR = "#1f6f8b", "#b8b8b8", "#c0392b"
LINES = {OURS: "Whimbrel", "safetensors": "safetensors load_file", "from_pretrained": "from_pretrained"}


def draw(figures: Figures, directory: Path) -> None:
    """One file for each part that was measured: cold bars, warm time over size, the ablation's steps."""
    directory.mkdir(parents=True, exist_ok=True)
    if figures.cold:
        _save(_cold(figures), directory / "loading-cold.png")
    if figures.warm:
        _save(_warm(figures), directory / "loading-warm.png")
    if figures.steps:
        _save(_steps(figures), directory / "loading-ablation.png")


def _cold(figures: Figures) -> Figure:
    assert figures.cold
    results = figures.cold.results
    limit = results.of(figures.cold.limit_key)
    assert limit
    raced = [entry for entry in results.entries if not entry.key.startswith("raw_")]
    raced.sort(key=lambda entry: entry.gb_per_s.median)
    figure, axes = _axes(f"Cold: {raced[0].bytes / 1e9:.1f} GB from disk, nothing in the page cache", "GB/s")
    _bars(axes, raced, {OURS, VERIFIED})
    axes.axvline(limit.gb_per_s.median, color=LIMIT_COLOUR, linestyle="--", label="raw O_DIRECT limit of this run")
    axes.legend(loc="lower right")
    return figure


def _warm(figures: Figures) -> Figure:
    assert figures.warm
    figure, axes = _axes("Warm: bytes in this node's memory, until the model is there", "billions of weights")
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    for key, label in LINES.items():
        found = [(size.parameters_b, entry.seconds) for size in figures.warm.sizes if (entry := size.results.of(key))]
        axes.plot([at for at, _ in found], [s.median * 1e3 for _, s in found], "o-", label=label)
    axes.legend()
    return figure


def _steps(figures: Figures) -> Figure:
    assert figures.steps
    figure, axes = _axes("What each step brings: cold, every byte hashed", "GB/s")
    _bars(axes, list(reversed(figures.steps.results.entries)), {"pipeline"})
    return figure


def _axes(title: str, x_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    return figure, axes


def _bars(axes: Axes, entries: Sequence[Result], ours: set[str]) -> None:
    """Medians, with whiskers from the least to the most of the rounds."""
    rates = [entry.gb_per_s for entry in entries]
    medians = [rate.median for rate in rates]
    spread = [[rate.median - rate.low for rate in rates], [rate.high - rate.median for rate in rates]]
    colours = [OURS_COLOUR if entry.key in ours else THEIRS_COLOUR for entry in entries]
    axes.barh([entry.label for entry in entries], medians, xerr=spread, color=colours, ecolor="#555555")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
