"""python -m benchmarks.engine --device cuda: how near decoding comes to the limit that a card's memory sets. Every step
reads all weights and all KV once, so its least time is those bytes at the speed of a large copy in the same run."""

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from benchmarks.engine.decoders import Compiled, Continuous, Decoder, Generated, Ours, Run, synchronize
from benchmarks.machine import Machine
from benchmarks.report import say, say_machine
from services.worker.engine.decoding import BY_TORCH, decoding_on
from services.worker.engine.model import assign, build, build_opaque

LLAMA_8B: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "eos_token_id": None,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
)
TINY = {**LLAMA_8B, "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"8b": LLAMA_8B, "tiny": {**TINY, "num_attention_heads": 4, "num_key_value_heads": 2}}
)
BATCHES = (1, 8, 64)
COPIES = 10
GENTLE = 0.02  # standard deviation of the random weights


@dataclass(frozen=True, slots=True)
class Decoded:
    """One contestant's steps of `rows` sequences, which read `step_bytes` each."""

    contestant: str
    rows: int
    step_s: float
    step_bytes: float

    def part_of(self, bytes_s: float) -> float:
        """Sustained part of the memory's bandwidth (S-MBU)."""
        return self.step_bytes / self.step_s / bytes_s


def main(argv: list[str] | None = None) -> None:
    """Every contestant at every batch size, one after the other; one that fails is left out, and says why."""
    options = _options(argv)
    device, started = torch.device(options.device), time.monotonic()
    say_machine(Machine.here())
    config: PreTrainedConfig = CONFIG_MAPPING["llama"](**SHAPES[options.shape])
    weights = _weights(config, device)
    read_bytes = sum(one.nbytes for name, one in weights.items() if "embed_tokens" not in name)
    bytes_s = _copy_bytes_s(options.copy_mib << 20, device)
    sizes = f"{read_bytes / 1e9:.2f} GB of weights a step; copies move {bytes_s / 1e9:.0f} GB/s"
    say(f"{options.shape} on {_named(device)}: {sizes}")
    found = list[Decoded]()
    for name, make in _contestants(config, weights, device).items():
        if options.only and name not in options.only:
            continue
        if time.monotonic() - started > options.within:
            say(f"  {name}: left out, {options.within:.0f} s have passed")
            continue
        found += _tried(name, make, options, read_bytes, bytes_s)
    if options.json:
        say(json.dumps(_figures(found, bytes_s)))


def _options(argv: list[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m benchmarks.engine.decode", description=__doc__)
    made.add_argument("--device", default="cuda", help="torch's name of what to decode on")
    made.add_argument("--shape", choices=SHAPES, default="8b", help="of the model, whose weights are random")
    made.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sequences at once")
    made.add_argument("--prompt-tokens", type=int, default=512)
    made.add_argument("--steps", type=int, default=64, help="timed of each answer, after some that are not")
    made.add_argument("--peer-steps", type=int, help="the same of transformers' answers, whose steps take longer")
    made.add_argument("--within", type=float, default=75.0, help="seconds after which no further contestant begins")
    made.add_argument("--only", nargs="+", help="contestants to run")
    made.add_argument("--copy-mib", type=int, default=4096, help="of the copy that shows the memory's speed")
    made.add_argument("--kernels", action="store_true", help="also show where the device's time goes in steps of ours")
    made.add_argument("--json", action="store_true", help="print one JSON object of figures as the last line")
    return made.parse_args(argv)


def _contestants(
    config: PreTrainedConfig, weights: Mapping[str, Tensor], device: torch.device
) -> Mapping[str, Callable[[], Decoder]]:
    """All on the same weights, those that matter most first."""
    ours = partial(_filled, partial(build, config, torch.bfloat16, device), weights)
    theirs = partial(_filled, partial(build_opaque, config, torch.bfloat16, device), weights)
    return {
        "ours": lambda: Ours(ours(), decoding_on(device)),
        "ours_unrecorded": lambda: Ours(ours(), decoding_on(device, recorded=False)),
        "hf_cb": lambda: Continuous(theirs()),
        "generate": lambda: Generated(theirs()),
        "generate_compiled": lambda: Compiled(theirs(), cache_implementation="static"),
        "ours_by_torch": lambda: Ours(ours(), BY_TORCH),
        "generate_static": lambda: Generated(theirs(), cache_implementation="static", disable_compile=True),
    }


def _tried(
    name: str, make: Callable[[], Decoder], options: argparse.Namespace, read_bytes: int, bytes_s: float
) -> list[Decoded]:
    found = list[Decoded]()
    try:
        contestant = make()
        try:
            for rows in options.batches:
                steps = options.steps if isinstance(contestant, Ours) else options.peer_steps or options.steps
                run = Run(rows, options.prompt_tokens, steps)
                step_s = contestant.step_s(run)
                found.append(Decoded(name, rows, step_s, read_bytes + rows * run.context * contestant.token_bytes))
                _say(found[-1], bytes_s)
            if options.kernels and isinstance(contestant, Ours):
                _say_kernels(contestant, options)
        finally:
            contestant.close()
    except Exception as error:  # a peer's, of whatever kind; the others are measured all the same
        say(f"  {name}: {type(error).__name__}: {str(error)[:300]}")
        say("".join(traceback.format_exception(error, limit=-4)[-6:])[-1500:])
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def _say_kernels(ours: Ours, options: argparse.Namespace) -> None:
    for rows in options.batches:
        say(f"    where the device's time goes with {rows} at once:")
        for line in ours.kernels(Run(rows, options.prompt_tokens, options.steps)):
            say(f"    {line}")


def _say(one: Decoded, bytes_s: float) -> None:
    rate = f"{one.rows / one.step_s:8.0f} tokens/s"
    took = f"{one.step_s * 1e3:7.2f} ms a step"
    say(f"  {one.contestant:<18}{one.rows:>3} at once  {took} {rate}  S-MBU {one.part_of(bytes_s):.3f}")


def _figures(found: list[Decoded], bytes_s: float) -> dict[str, float]:
    figures: dict[str, float] = {"copy_gb_s": round(bytes_s / 1e9)}
    for one in found:
        figures |= {
            f"{one.contestant}_b{one.rows}_tokens_s": round(one.rows / one.step_s, 1),
            f"{one.contestant}_b{one.rows}_s_mbu": round(one.part_of(bytes_s), 4),
        }
    return figures


def _weights(config: PreTrainedConfig, device: torch.device) -> dict[str, Tensor]:
    """Random, on the device, by the names of the state dict."""
    torch.manual_seed(0)
    state = build(config, torch.bfloat16).state_dict()  # on meta
    return {
        name: torch.ones(one.shape, dtype=one.dtype, device=device)
        if one.dim() == 1
        else torch.randn(one.shape, dtype=one.dtype, device=device) * GENTLE
        for name, one in state.items()
    }


def _filled(make: Callable[[], PreTrainedModel], weights: Mapping[str, Tensor]) -> PreTrainedModel:
    module = make()
    assign(module, weights)
    return module


def _copy_bytes_s(size: int, device: torch.device) -> float:
    """Bytes read and written a second by copies of `size` bytes within the device."""
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    target.copy_(source)
    synchronize(device)
    started = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    synchronize(device)
    return 2 * size * COPIES / (time.perf_counter() - started)


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    main()
