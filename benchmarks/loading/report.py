"""What the benchmark says: lines for people, and figures for machines."""

import json
from dataclasses import dataclass

from benchmarks.loading.cold import OURS, VERIFIED, ColdFigures
from benchmarks.loading.contest import Results
from benchmarks.loading.crowd import COUNTS, CrowdFigures
from benchmarks.loading.importing import Imported
from benchmarks.loading.many import ManyFigures
from benchmarks.loading.residence import ResidenceFigures
from benchmarks.loading.steps import StepFigures
from benchmarks.loading.warm import WarmFigures
from benchmarks.loading.wire import WireFigures
from benchmarks.report import row, say
from benchmarks.series import Series

NAMES = {COUNTS[1]: "two", COUNTS[2]: "four"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None: left out."""

    imported: Imported | None = None
    least_imported: Imported | None = None  # something tiny, for what Python itself takes
    cold: ColdFigures | None = None
    warm: WarmFigures | None = None
    many: ManyFigures | None = None
    crowd: CrowdFigures | None = None
    residence: ResidenceFigures | None = None
    wire: WireFigures | None = None
    steps: StepFigures | None = None

    def json(self) -> str:
        """One object of medians: ratios by the names that others lean on, and the rates that they come from."""
        figures: dict[str, object] = {}
        if self.cold:
            figures |= _cold(self.cold)
        if self.warm:
            figures |= _warm(self.warm)
        if self.residence:
            figures |= {"peak_rss_ratio": self.residence.ratio, "peak_rss_ratio_all": self.residence.all_ratio}
        if self.many:
            figures |= _versus("many_cold", self.many.cold) | _versus("many_warm", self.many.warm)
        if self.crowd:
            figures |= _crowd(self.crowd)
        if self.wire:
            figures |= {
                "peer_vs_tcp": self.wire.efficiency.median,
                "peer_gb_per_s": self.wire.units.median,
                "tcp_gb_per_s": self.wire.tcp.median,
            }
        if self.imported:
            figures |= {
                "import_gb_per_s": self.imported.gb_per_s,
                "import_peak_bytes": self.imported.peak_bytes,
                "import_largest_unit_bytes": self.imported.largest_unit_bytes,
            }
        if self.imported and self.least_imported:
            figures["import_memory_over_bound"] = self.imported.over_bound(self.least_imported)
        if self.steps:
            figures["ablation_gb_per_s"] = {
                step.key: round(step.gb_per_s.median, 4) for step in self.steps.results.entries
            }
        return json.dumps({name: _rounded(value) for name, value in figures.items()})


def say_figures(figures: Figures) -> None:
    """Every part that was measured."""
    if figures.cold:
        _say_cold(figures.cold)
    if figures.warm:
        _say_warm(figures.warm)
    if figures.many:
        say(f"\nMany small tensors, {figures.many.model.layers} layers of {figures.many.model.experts} experts:")
        for name, results in (("cold", figures.many.cold), ("warm", figures.many.warm)):
            say(f" {name}")
            _say_race(results)
    if figures.crowd:
        say("\nLoads at once, cold, each of the same size; GB/s together, and the quickest's time over the slowest's:")
        for crowd in figures.crowd.crowds:
            row(str(crowd.count), crowd.gb_per_s, "GB/s")
            row("  fairness", crowd.fairness, "")
    if figures.residence:
        _say_residence(figures.residence)
    if figures.wire:
        say("\nFrom another store over loopback, hashes checked, beside a plain TCP copy of the same bytes:")
        row("ReadUnits", figures.wire.units, "GB/s")
        row("TCP", figures.wire.tcp, "GB/s")
        row("ratio", figures.wire.efficiency, "")
    if figures.imported:
        one = figures.imported
        say(
            f"\nImport: {one.gb_per_s:.2f} GB/s; at most {one.peak_bytes / 1e6:.0f} MB of private memory in store and "
            f"import process, imports of Python included; the largest unit has {one.largest_unit_bytes / 1e6:.0f} MB"
        )
        if figures.least_imported:
            share = one.over_bound(figures.least_imported)
            say(f"  beyond a tiny import's memory: {share:.2f} of two units and the ring")
    if figures.steps:
        say("\nAblation, cold, every byte hashed:")
        for step in figures.steps.results.entries:
            row(step.label, step.gb_per_s, "GB/s")


def _cold(figures: ColdFigures) -> dict[str, object]:
    found: dict[str, object] = {
        "cold_vs_raw_limit": figures.vs_limit().median,
        "cold_verified_vs_raw_limit": figures.vs_limit(VERIFIED).median,
        "cold_gb_per_s": _rates(figures.results),
        "peers_missing": list(figures.missing),
    }
    return found | _versus("cold", figures.results) | _versus("cold_verified", figures.results, VERIFIED)


def _warm(figures: WarmFigures) -> dict[str, object]:
    found: dict[str, object] = {
        "warm_ready_ms": figures.main.ready_s.median * 1e3,
        "warm_touch_ms": figures.main.touch_s.median * 1e3,
        "warm_ready_ms_by_size": {
            f"{size.parameters_b:g}b": round(size.ready_s.median * 1e3, 2) for size in figures.sizes
        },
    }
    return found | _versus("warm", figures.main.results)


def _crowd(figures: CrowdFigures) -> dict[str, object]:
    found: dict[str, object] = {}
    for crowd in figures.crowds:
        if name := NAMES.get(crowd.count):
            found[f"{name}_loads_vs_one"] = figures.versus_one(crowd.count).median
            found[f"{name}_loads_fairness"] = crowd.fairness.median
    return found


def _versus(prefix: str, results: Results, ours: str = OURS) -> dict[str, object]:
    """How many times as long as ours each peer took."""
    found: dict[str, object] = {}
    for entry in results.entries:
        if entry.key not in (OURS, VERIFIED) and not entry.key.startswith("raw_"):
            ratio = results.ratio(entry.key, ours)
            assert ratio is not None
            found[f"{prefix}_vs_{entry.key}"] = ratio.median
    return found


def _rates(results: Results) -> dict[str, float]:
    return {entry.key: round(entry.gb_per_s.median, 4) for entry in results.entries}


def _say_cold(figures: ColdFigures) -> None:
    results = figures.results
    say(f"\nCold, {results.entries[0].bytes / 1e9:.2f} GB, page cache dropped, {results.rounds} rounds, and how many")
    say("times as long as ours (verify=import) it took:")
    _say_race(results)
    row("share of the limit", figures.vs_limit(), "")
    row("  verify=always", figures.vs_limit(VERIFIED), "")
    _say_missing(figures.missing)


def _say_warm(figures: WarmFigures) -> None:
    for size in figures.sizes:
        say(f"\nWarm, {size.parameters_b:g} billion weights, until a replica (ours, theirs: tensors) is there:")
        _say_race(size.results, "ms", 1e3)
        row("touching ours afterwards", Series.of(value * 1e3 for value in size.touch_s.values), "ms")
    _say_missing(figures.missing)


def _say_residence(figures: ResidenceFigures) -> None:
    say(
        f"\nMemory at its highest in a load: {figures.ratio:.3f} of the model's bytes; with all that two interpreters "
        f"have loaded, {figures.all_ratio:.3f}"
    )


def _say_race(results: Results, unit: str = "GB/s", scale: float = 1.0) -> None:
    for entry in results.entries:
        series = Series.of(value * scale for value in entry.seconds.values) if unit == "ms" else entry.gb_per_s
        ratio = results.ratio(entry.key, OURS)
        row(entry.label, series, unit, f"x{ratio.text('')}" if ratio and entry.key != OURS else "")


def _say_missing(labels: tuple[str, ...]) -> None:
    if labels:
        say(f"  not installed, so left out: {', '.join(labels)}; make bench-peers installs them")


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
