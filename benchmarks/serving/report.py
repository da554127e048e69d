"""What the benchmark says: lines for people, and figures for machines."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.report import row, say
from benchmarks.series import Series
from benchmarks.serving.cold import PROMPT, ColdFigures
from benchmarks.serving.dispatch import DispatchFigures
from benchmarks.serving.relay import STREAMS, RelayFigures


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None: left out."""

    cold: ColdFigures | None = None
    relay: RelayFigures | None = None
    dispatch: DispatchFigures | None = None

    def json(self) -> str:
        """One object of medians: the three that count, and what they come from."""
        figures: dict[str, float] = {}
        if self.cold:
            figures["cold_ttft_speedup"] = self.cold.speedup.median
            figures |= {"cold_ttft_s": self.cold.ours_s.median, "fresh_process_ttft_s": self.cold.peer_s.median}
        if self.relay:
            figures["relay_efficiency"] = self.relay.efficiency.median
            figures |= {
                "served_tokens_per_s": self.relay.served.median,
                "direct_tokens_per_s": self.relay.direct.median,
            }
        if self.dispatch:
            figures["warm_dispatch_rps"] = self.dispatch.best.median
            figures["warm_dispatch_asyncio_client_rps"] = self.dispatch.python.median
        return json.dumps({name: round(value, 4) for name, value in figures.items()})


def say_figures(figures: Figures) -> None:
    """Every part that was measured."""
    if figures.cold:
        _say_cold(figures.cold)
    if figures.relay:
        _say_relay(figures.relay)
    if figures.dispatch:
        _say_dispatch(figures.dispatch)


def _say_cold(figures: ColdFigures) -> None:
    rounds, finished = figures.rounds, [one.ours.finished for one in figures.rounds]
    say(
        f"\nCold start of {figures.parameters_b:g} billion bfloat16 weights, {figures.threads} threads of torch on "
        f"both sides, prompt {PROMPT!r} of {rounds[0].peer.prompt_tokens} tokens, "
        f"{len(rounds)} rounds; time to first token:"
    )
    row("Whimbrel, from DRAM", figures.ours_s, "s")
    _parts({
        "queue": (end.times.queue_s for end in finished),
        "load": (end.times.load_s for end in finished),
        "first step": (end.time_to_first_token_s - end.times.queue_s - end.times.load_s for end in finished),
        "wire": (one.ours.first_s - one.ours.finished.time_to_first_token_s for one in rounds),
    })  # fmt: skip
    row("fresh process, from_pretrained", figures.peer_s, "s")
    _parts({
        "import": (one.peer.import_s for one in rounds),
        "load": (one.peer.load_s for one in rounds),
        "generate": (one.peer.generate_s for one in rounds),
    })  # fmt: skip
    row("speedup", figures.speedup, "")
    say(f"  same first token in {figures.same_tokens} of {len(rounds)} rounds")


def _say_relay(figures: RelayFigures) -> None:
    say(
        f"\nRelay of {STREAMS} streams of {figures.tokens} tokens, {figures.parameters_b:g} billion weights, "
        f"{figures.threads} threads of torch on both sides, {len(figures.served.values)} rounds:"
    )
    row("through gateway and worker", figures.served, "tokens/s")
    row("the engine called directly", figures.direct, "tokens/s")
    row("efficiency", figures.efficiency, "")


def _say_dispatch(figures: DispatchFigures) -> None:
    say(f"\nWarm dispatch, {figures.at_once} requests at once, one token each, an engine without work:")
    if figures.h2load:
        row("asked by h2load", figures.h2load, "requests/s")
    row("asked by asyncio clients", figures.python, "requests/s")
    cpu = (f"{name} {figures.cpu_us(name).median:.0f}" for name in figures.rounds[0].cpu_us)
    say(f"    processor time a request: {', '.join(cpu)} µs")
    say("  for scale: ServerlessLLM's router sleeps 1 s for each request, one at a time: 1 request/s a model")


def _parts(parts: Mapping[str, Iterable[float]]) -> None:
    """Medians, in milliseconds."""
    shown = (f"{name} {Series.of(values).median * 1e3:.0f}" for name, values in parts.items())
    say(f"    {', '.join(shown)} ms")
