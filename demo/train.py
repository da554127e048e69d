"""Trains the demo model from scratch on `demo/text` and writes `demo/model`: `python -m demo.train --help`.

The committed weights come from an earlier form of this script (AdamW alone, documents packed into rows of 1024 tokens,
1000 steps of two rows), so a run with the defaults gives other, untested weights.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.ask import score
from demo.corpus import Entry, read_entries, read_passages
from demo.examples import Document, one_round
from demo.tokens import Sample, encode, train_tokenizer

MAX_POSITIONS = 2048
MODEL = Path(__file__).parent / "model"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training run does. The same plan on the same machine gives the same bytes."""

    rounds: int
    batch_tokens: int
    peak_rate: float
    vocab_size: int
    threads: int
    seed: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of similar length, padded on the right: `ids` int64 and `weights` float32, both [samples, tokens]."""

    ids: torch.Tensor
    weights: torch.Tensor


def main() -> None:
    arguments = _parser().parse_args()
    plan = Plan(
        rounds=arguments.rounds,
        batch_tokens=arguments.batch_tokens,
        peak_rate=arguments.rate,
        vocab_size=arguments.vocab,
        threads=arguments.threads,
        seed=arguments.seed,
    )
    train(plan, arguments.out)


def train(plan: Plan, out: Path) -> None:
    """Trains as planned, measures the result on the wordings that it has never seen, and writes it to `out`."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    torch.use_deterministic_algorithms(True)
    entries, passages = read_entries(), read_passages()
    tokenizer = train_tokenizer(_texts(entries, passages), plan.vocab_size, MAX_POSITIONS)
    model = build(tokenizer)
    print(f"{len(entries)} answers, {len(passages)} passages; {model.num_parameters():,} weights")
    rng = random.Random(plan.seed)
    rounds = (one_round(entries, passages, rng) for _ in range(plan.rounds))
    _fit(model, (_batches(tokenizer, documents, plan, rng) for documents in rounds), plan)
    save(model, tokenizer, out)
    for line in score(out, entries):
        print(line)


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of about 3.5 million weights, float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: Any, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes weights (bfloat16 safetensors), configuration, generation defaults, tokenizer and chat template."""
    defaults: Any = GenerationConfig
    model.generation_config = defaults(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # written as 0600, but a service may run as another user
    print(f"wrote {out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB")


def _fit(model: LlamaForCausalLM, rounds: Iterator[list[Batch]], plan: Plan) -> None:
    optimizers = _optimizers(model)
    started = time.monotonic()
    for done, batches in enumerate(rounds):
        losses = []
        for index, batch in enumerate(batches):
            rate = plan.peak_rate * _rate_factor((done + index / len(batches)) / plan.rounds)
            losses.append(_step(model, optimizers, batch, rate))
        passed_s = time.monotonic() - started
        left_s = passed_s / (done + 1) * (plan.rounds - done - 1)
        mean = sum(losses) / len(losses)
        print(
            f"round {done + 1}/{plan.rounds}  loss {mean:.4f}  {passed_s:.0f} s, about {left_s:.0f} s left", flush=True
        )


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices: it reaches the same loss in less than half the rounds that AdamW takes."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _step(model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], batch: Batch, rate: float) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.ids[:, :-1]).logits
    weights = batch.weights[:, 1:]
    each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), batch.ids[:, 1:], reduction="none")
    loss = (each * weights).sum() / weights.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _rate_factor(progress: float) -> float:
    """Learning rate as a share of its peak: warm-up over 4 percent of the run, then half a cosine down to 1 percent."""
    return min(1.0, 0.01 + progress / 0.04) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _batches(
    tokenizer: PreTrainedTokenizerFast, documents: Iterator[Document], plan: Plan, rng: random.Random
) -> list[Batch]:
    """One round in batches of at most `batch_tokens`, padding included: sorted by length, then put in random order."""
    samples = sorted((encode(tokenizer, document) for document in documents), key=lambda sample: len(sample.ids))
    groups: list[list[Sample]] = [[]]
    for sample in samples:
        if (len(groups[-1]) + 1) * len(sample.ids) > plan.batch_tokens:
            groups.append([])
        groups[-1].append(sample)
    rng.shuffle(groups)
    return [_padded(group) for group in groups if group]


def _padded(samples: Sequence[Sample]) -> Batch:
    ids = [torch.tensor(sample.ids) for sample in samples]
    weights = [torch.tensor(sample.weights) for sample in samples]
    pad = torch.nn.utils.rnn.pad_sequence
    return Batch(pad(ids, batch_first=True), pad(weights, batch_first=True))


def _texts(entries: Sequence[Entry], passages: Sequence[str]) -> Iterator[str]:
    for entry in entries:
        yield entry.answer
        yield from entry.wordings[:3]
    yield from passages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.train",
        description="Trains the demo model from scratch on the text in demo/text, on the processor alone. "
        "The same options on the same machine give the same weights.",
        epilog="A quick look: python -m demo.train --rounds 3 --out /tmp/model",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=MODEL, help="directory to write the model to")
    parser.add_argument("--rounds", type=int, default=40, help="times that each answer is seen as a whole")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="most tokens in one optimizer step")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--vocab", type=int, default=2048, help="size of the vocabulary")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the text")
    return parser


if __name__ == "__main__":
    main()
