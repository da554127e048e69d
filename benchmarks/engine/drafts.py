"""What drafts save where answers repeat themselves, and what they cost where nothing does, in this process:
python -m benchmarks.engine.drafts"""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from benchmarks.args import parser
from benchmarks.engine.engines import pretrained
from benchmarks.engine.stage import batches
from benchmarks.machine import Machine
from benchmarks.models import Decoder, random_models
from benchmarks.report import row, say_machine
from benchmarks.series import Series
from mesh.requests import TokenBias
from services.worker.engine.batch import Limits
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams

DTYPE, KV_BYTES = "bfloat16", 256 << 20
PROMPT_TOKENS, TOKENS, DRAFT_TOKENS = 64, 64, 8
CERTAIN = 100.0  # added to a logit: no other token comes
TEXTS: Mapping[str, SamplingParams] = MappingProxyType(
    {
        "one token for ever": SamplingParams(TOKENS, 0.0, logit_bias=(TokenBias(7, CERTAIN),)),
        "a coin's throws": SamplingParams(TOKENS, 1.0, logit_bias=(TokenBias(7, CERTAIN), TokenBias(8, CERTAIN))),
        "nothing twice": SamplingParams(TOKENS, 1.0),
    }
)


@dataclass(frozen=True, slots=True)
class Run:
    """Answers to one batch."""

    cpu_s: float
    passes: int
    guessed: int
    taken: int


def main() -> None:
    """Rounds of each text at each batch size, with drafts and without."""
    options = parser("engine.drafts", "Measures what drafts save and cost.").parse_args()
    layers, rounds = (2, 1) if options.quick else (12, 3)
    say_machine(Machine.here())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as directory, torch.inference_mode():
        (source,) = asyncio.run(random_models(Path(directory), [Decoder(DTYPE, layers)]))
        replicas = {drafts: _replica(source, drafts) for drafts in (0, DRAFT_TOKENS)}
        for count in (1, 8):
            for name, params in TEXTS.items():
                _compare(f"{name}, {count} at once", replicas, count, params, rounds)


def _compare(name: str, replicas: Mapping[int, PackedReplica], count: int, params: SamplingParams, rounds: int) -> None:
    runs: dict[int, list[Run]] = {drafts: [] for drafts in replicas}
    drawn = batches(count, PROMPT_TOKENS, TOKENS)
    for _ in range(1 + rounds):
        batch = next(drawn)
        for drafts, replica in replicas.items():
            runs[drafts].append(_run(replica, batch.prompts, params))
    without, drafted = runs[0][1:], runs[DRAFT_TOKENS][1:]
    faster = Series.of(one.cpu_s for one in without).over(Series.of(one.cpu_s for one in drafted))
    guessed, taken = sum(one.guessed for one in drafted), sum(one.taken for one in drafted)
    passes = f"{drafted[-1].passes} passes instead of {without[-1].passes}, {taken} of {guessed} guesses right"
    row(name, faster, "times the tokens a CPU second", passes)


def _replica(source: Path, drafts: int) -> PackedReplica:
    limits = Limits(draft_tokens=drafts)
    return PackedReplica("bench", "", pretrained(source, DTYPE), KV_BYTES, eos_token_ids=(), limits=limits)


def _run(replica: PackedReplica, prompts: Sequence[tuple[int, ...]], params: SamplingParams) -> Run:
    before, began_s = replica.stats(), time.process_time()
    for number, prompt in enumerate(prompts):
        replica.add(EngineRequest(str(number), "bench", prompt, params))
    while replica.has_work:
        replica.step()
    after, cpu_s = replica.stats(), time.process_time() - began_s
    guessed, taken = after.draft_tokens - before.draft_tokens, after.taken_tokens - before.taken_tokens
    return Run(cpu_s, after.steps - before.steps, guessed, taken)


if __name__ == "__main__":
    main()
