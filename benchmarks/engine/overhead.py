"""python -m benchmarks.engine.overhead: what a step costs beside the forward pass. The model has many layers and next
to no arithmetic, so that what a pass takes is Python and kernel launches; the rest of a step is the engine's own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from benchmarks.report import row, say
from benchmarks.series import Series
from services.worker.engine.batch import Limits, Span
from services.worker.engine.packed import PackedRunner
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams

LAYERS, PROMPT_TOKENS, KV_BYTES = 32, 64, 256 << 20
BATCHES = (1, 8, 32)
WARM_STEPS, STEPS = 20, 200


@dataclass(frozen=True, slots=True)
class Overhead:
    """Decoding steps of `batch` rows, in seconds each: all of a step, and the part outside of the forward pass."""

    batch: int
    step_s: Series
    outside_s: Series


class Timed:
    """A runner that notes how long its passes take."""

    def __init__(self, runner: PackedRunner) -> None:
        self._runner = runner
        self.took_s = 0.0

    def run(self, spans: Sequence[Span]) -> Tensor:
        """As the runner's."""
        started = time.perf_counter()
        logits = self._runner.run(spans)
        self.took_s = time.perf_counter() - started
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def measure_overhead(batches: Sequence[int] = BATCHES, steps: int = STEPS) -> list[Overhead]:
    """One batch size after the other, all greedy."""
    module = _module()
    with torch.inference_mode():
        return [_measure(module, batch, steps) for batch in batches]


def _measure(module: PreTrainedModel, batch: int, steps: int) -> Overhead:
    replica = PackedReplica("overhead", "overhead", module, KV_BYTES, limits=Limits(running=batch))
    timed = Timed(replica._runner)
    replica._runner = timed  # type: ignore[assignment]  # it is one, but for the clock
    for number in range(batch):
        ids = tuple(range(number, number + PROMPT_TOKENS))
        params = SamplingParams(max_tokens=WARM_STEPS + steps + 64, temperature=0.0)
        replica.add(EngineRequest(str(number), "overhead", ids, params))
    while replica.stats().tokens < batch * WARM_STEPS:
        replica.step()
    taken: list[tuple[float, float]] = []
    for _ in range(steps):
        started = time.perf_counter()
        replica.step()
        step_s = time.perf_counter() - started
        taken.append((step_s, step_s - timed.took_s))
    return Overhead(batch, Series.of(step for step, _ in taken), Series.of(outside for _, outside in taken))


def _module() -> PreTrainedModel:
    shape: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": None,
    }
    config: PreTrainedConfig = CONFIG_MAPPING["llama"](**shape)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return made


def say_overhead(figures: Sequence[Overhead]) -> None:
    """A line a batch size, medians with their spread."""
    say(f"\nA decoding step of {LAYERS} layers without arithmetic, and what of it is outside of the forward pass:")
    for one in figures:
        part = one.outside_s.over(one.step_s).median
        outside = Series.of(value * 1e6 for value in one.outside_s.values)
        row(f"{one.batch} at once", Series.of(value * 1e3 for value in one.step_s.values), "ms")
        row("  outside of the pass", outside, "us", f"{part:.1%} of the step")


if __name__ == "__main__":
    torch.set_num_threads(1)
    say_overhead(measure_overhead())
