"""What the benchmark says: lines for people, and figures for machines."""

import json
from dataclasses import dataclass

from benchmarks.engine.levels import INVARIANT, LevelFigures
from benchmarks.engine.overhead import Overhead, say_overhead
from benchmarks.engine.prefix import PrefixFigures
from benchmarks.engine.start import SHAPES, StartFigures, Table
from benchmarks.engine.throughput import OURS, Heat, ThroughputFigures
from benchmarks.report import row, say
from benchmarks.series import Series
from mesh.facts import NumericsLevel

SHORT = {"bfloat16": "bf16", "float32": "fp32"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None: left out."""

    threads: int
    throughput: ThroughputFigures | None = None
    prefix: PrefixFigures | None = None
    levels: LevelFigures | None = None
    overhead: tuple[Overhead, ...] = ()
    start: StartFigures | None = None

    def json(self) -> str:
        """One object of medians. vs_PEER_bN is the least over the precisions; each has its own key, too."""
        figures: dict[str, object] = {"threads": self.threads}
        if self.throughput:
            figures |= _throughput(self.throughput)
        if self.prefix:
            figures |= {
                "prefix_hit_speedup": self.prefix.speedup.median,
                "prefix_miss_ttft_ms": self.prefix.miss_s.median * 1e3,
                "prefix_hit_ttft_ms": self.prefix.hit_s.median * 1e3,
            }
        if self.levels:
            figures |= _levels(self.levels)
        for one in self.overhead:
            figures |= {
                f"step_ms_b{one.batch}": one.step_s.median * 1e3,
                f"step_outside_pass_b{one.batch}": one.outside_s.over(one.step_s).median,
            }
        if self.start:
            figures |= _start(self.start)
        return json.dumps({name: _rounded(value) for name, value in figures.items()})


def say_figures(figures: Figures) -> None:
    """Every part that was measured."""
    if figures.throughput:
        say(f"\nAnswers of the same prompts, {figures.threads} threads each; then ours over theirs, and the same for a")
        say("second of processor time:")
        for heat in figures.throughput.heats:
            _say_heat(heat)
        if figures.throughput.missing:
            missing = ", ".join(figures.throughput.missing)
            say(f"  not installed, so left out: {missing}; make bench-peers installs them")
    if figures.prefix:
        say(f"\nTime to first token of a prompt of {figures.prefix.prompt_tokens} tokens:")
        row("all new", _ms(figures.prefix.miss_s), "ms")
        row("all but its end known", _ms(figures.prefix.hit_s), "ms", f"x{figures.prefix.speedup.text('')}")
    if figures.levels:
        _say_levels(figures.levels)
    if figures.overhead:
        say_overhead(figures.overhead)
    if figures.start:
        _say_start(figures.start)


def _say_levels(figures: LevelFigures) -> None:
    say("\nNumerics levels, and what part of the tokens for a second of processor time each costs:")
    for heat in figures.heats:
        say(f" {SHORT[heat.dtype]}, {heat.prompts} at once")
        for level, result in heat.results.items():
            cost = f"costs {heat.overhead(NumericsLevel(level)).text('')}" if level in INVARIANT else ""
            row(level, result.tokens_per_s, "tok/s", cost)


def _say_start(figures: StartFigures) -> None:
    say("\nCold start of a worker, bytes in this node's memory:")
    _say_table("imports, before it serves", figures.imports)
    _say_table("a load that builds its module", figures.fresh)
    _say_table("a load that finds its module ready", figures.ready)
    row("order to first token, ready", _ms(figures.ready_s), "ms")
    row("the same, a process just started", _ms(figures.everything_s), "ms")
    for name in SHAPES:
        _say_table(f"a Llama of the shape {name}", figures.shapes[name])
        row("assign again, a layer", figures.assign_ms_a_layer(name), "ms")


def _say_table(title: str, table: Table) -> None:
    say(f" {title}")
    for name, part in table.items():
        row(name, _ms(part.elapsed_s), "ms", f"cpu {_ms(part.cpu_s).text('ms')}")


def _say_heat(heat: Heat) -> None:
    say(f" {SHORT[heat.dtype]}, {heat.prompts} at once")
    for key, result in heat.results.items():
        versus = ""
        if key != OURS:
            versus = f"  x{heat.speedup(key).text('')}, cpu x{heat.cpu_speedup(key).text('')}"
        row(result.label, result.tokens_per_s, "tok/s", f"first after {_ms(result.ttft_s).text('ms')}{versus}")


def _throughput(figures: ThroughputFigures) -> dict[str, object]:
    found: dict[str, object] = {"peers_missing": list(figures.missing)}
    for heat in figures.heats:
        where = f"b{heat.prompts}_{SHORT[heat.dtype]}"
        for key in heat.results:
            if key != OURS:
                found[f"vs_{key}_{where}"] = heat.speedup(key).median
                found[f"cpu_vs_{key}_{where}"] = heat.cpu_speedup(key).median
                found[f"ttft_vs_{key}_{where}"] = heat.ttft_speedup(key).median
        found[f"tokens_per_s_{where}"] = {key: round(r.tokens_per_s.median, 2) for key, r in heat.results.items()}
        found[f"ttft_ms_{where}"] = {key: round(r.ttft_s.median * 1e3, 2) for key, r in heat.results.items()}
    return _least(figures) | found


def _levels(figures: LevelFigures) -> dict[str, object]:
    return {
        f"overhead_{level}_b{heat.prompts}_{SHORT[heat.dtype]}": heat.overhead(level).median
        for heat in figures.heats
        for level in INVARIANT
    }


def _start(figures: StartFigures) -> dict[str, object]:
    tables = {"imports": figures.imports, "fresh": figures.fresh, "ready": figures.ready, **figures.shapes}
    return {
        "start_ready_first_token_ms": figures.ready_s.median * 1e3,
        "start_vs_new_process": figures.everything_s.over(figures.ready_s).median,
        "assign_ms_a_layer": {name: round(figures.assign_ms_a_layer(name).median, 4) for name in SHAPES},
        "start_ms": {name: _medians(table) for name, table in tables.items()},
    }


def _medians(table: Table) -> dict[str, float]:
    return {name: round(part.elapsed_s.median * 1e3, 3) for name, part in table.items()}


def _least(figures: ThroughputFigures) -> dict[str, object]:
    """By peer and batch size, over the precisions: what is claimed holds in each."""
    least: dict[str, float] = {}
    for heat in figures.heats:
        for key in heat.results:
            if key != OURS:
                name, ratio = f"vs_{key}_b{heat.prompts}", heat.speedup(key).median
                least[name] = min(least.get(name, ratio), ratio)
    return dict(least)


def _ms(seconds: Series) -> Series:
    return Series.of(value * 1e3 for value in seconds.values)


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
