"""Who decodes in benchmarks.engine.decode, each as a user of it would: seconds of a step, once it is under way."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from services.worker.engine.batch import Limits
from services.worker.engine.decoding import Decoding
from services.worker.engine.model import probe_kv
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.request import EngineRequest
from services.worker.engine.sample import SamplingParams

WARM_STEPS = 6  # not timed: kernels are compiled in them, and steps recorded
CB_BLOCK_TOKENS = 256
BATCH_TOKENS = 8192  # of a step of ours: prompts are computed in few
CB_BATCH_TOKENS = 2048
CB_PATIENCE_S = 30  # with the next token
KERNELS, PROFILED_STEPS = 16, 4


@dataclass(frozen=True, slots=True)
class Run:
    """`rows` sequences of the same length, of whose steps `steps` are timed."""

    rows: int
    prompt_tokens: int
    steps: int

    @property
    def tokens(self) -> int:
        """Of each answer."""
        return 1 + WARM_STEPS + self.steps

    @property
    def context(self) -> float:
        """Tokens that a row sees in a timed step, on average."""
        return self.prompt_tokens + WARM_STEPS + self.steps / 2

    def prompts(self, vocabulary: int) -> list[list[int]]:
        """Random, and never the same again in a process: nothing is found in a cache."""
        return torch.randint(1, vocabulary, (self.rows, self.prompt_tokens)).tolist()


class Decoder(Protocol):
    """One way to decode a model."""

    token_bytes: int  # KV that a token leaves behind

    def step_s(self, run: Run) -> float:
        """Of its timed steps, the mean."""

    def close(self) -> None:
        """Free what it has on the device."""


class Ours:
    """A packed replica stepped by hand, as the engine's thread steps it."""

    def __init__(self, module: PreTrainedModel, decoding: Decoding) -> None:
        self._module, self._decoding = module, decoding
        self.token_bytes = probe_kv(module).token_bytes

    def step_s(self, run: Run) -> float:
        """See Decoder."""
        with torch.inference_mode():
            replica = self._under_way(run)
            started = time.perf_counter()
            for _ in range(run.steps):
                replica.step()
            took_s = time.perf_counter() - started
            replica.fail("the run is over")
            self._end(replica)
        return took_s / run.steps

    def kernels(self, run: Run) -> list[str]:
        """A line for each of those that take most of the device's time in a step, the longest first."""
        with torch.inference_mode():
            replica = self._under_way(run)
            with torch.profiler.profile() as profile:
                for _ in range(PROFILED_STEPS):
                    replica.step()
            replica.fail("the run is over")
            self._end(replica)
        found = [one for one in profile.key_averages() if one.self_device_time_total]
        found.sort(key=lambda one: -one.self_device_time_total)
        return [_line(one.key, one.self_device_time_total, one.count) for one in found[:KERNELS]]

    def close(self) -> None:
        """See Decoder."""

    def _under_way(self, run: Run) -> PackedReplica:
        """A replica whose sequences all decode, and have for WARM_STEPS."""
        spec = probe_kv(self._module)
        ahead = 2 + run.rows * run.prompt_tokens // (BATCH_TOKENS - run.rows)  # of the last one, while it is a prompt
        row_blocks = 1 + (run.prompt_tokens + run.tokens + ahead) // spec.block_tokens
        kv_bytes = (run.rows + 1) * row_blocks * spec.block_bytes
        limits = Limits(BATCH_TOKENS, run.rows)
        replica = PackedReplica("8b", "8b", self._module, kv_bytes, spec=spec, limits=limits, decoding=self._decoding)
        params = SamplingParams(max_tokens=run.tokens + ahead, temperature=0.0, ignore_eos=True)
        for number, prompt in enumerate(run.prompts(self._module.config.vocab_size)):
            replica.add(EngineRequest(str(number), "8b", tuple(prompt), params))
        told = dict.fromkeys(map(str, range(run.rows)), 0)
        while min(told.values()) < 1:
            for step in replica.step():
                told[step.request_id] += len(step.tokens)
        for _ in range(WARM_STEPS):
            replica.step()
        return replica

    def _end(self, replica: PackedReplica) -> None:
        """Its KV memory and recordings; the weights stay."""
        replica._runner.close()
        replica._cache.unload()


class Generated:
    """transformers' generate; its cache is its default, or as `options` say."""

    def __init__(self, module: PreTrainedModel, **options: Any) -> None:
        self._module: Any = module
        self._options = options
        self.token_bytes = _token_bytes(module)

    def step_s(self, run: Run) -> float:
        """See Decoder."""
        times = list[float]()

        def on_token(ids: Any, scores: Any, **_: Any) -> Any:
            synchronize(self._module.device)
            times.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        ids = torch.tensor(run.prompts(self._module.config.vocab_size), device=self._module.device)
        with torch.inference_mode():
            self._module.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=run.tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                stopping_criteria=[on_token],
                **self._options,
            )
        return (times[-1] - times[WARM_STEPS]) / (len(times) - 1 - WARM_STEPS)

    def close(self) -> None:
        """See Decoder."""


class Compiled(Generated):
    """The same with the step that transformers compiles: each number of rows is run once before it is timed."""

    def step_s(self, run: Run) -> float:
        """See Decoder."""
        super().step_s(run)
        return super().step_s(run)


class Continuous:
    """transformers' continuous batching, on the attention and with the graphs that it chooses here by itself."""

    def __init__(self, module: PreTrainedModel) -> None:
        self._module: Any = module
        self.token_bytes = _token_bytes(module)

    def step_s(self, run: Run) -> float:
        """Between the last first token and the last of all, over the steps that lie between them."""
        blocks = (run.rows + 1) * -(-(run.prompt_tokens + run.tokens) // CB_BLOCK_TOKENS)
        own = ContinuousBatchingConfig(
            block_size=CB_BLOCK_TOKENS,
            num_blocks=blocks,
            max_batch_tokens=max(CB_BATCH_TOKENS, run.rows),
            allow_block_sharing=False,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
        manager = self._module.init_continuous_batching(greedy, own)
        manager.start()
        try:
            return self._timed(manager, run)
        finally:
            manager.stop(block=True)

    def close(self) -> None:
        """See Decoder."""

    def _timed(self, manager: Any, run: Run) -> float:
        counts = dict.fromkeys(
            (
                manager.add_request(prompt, max_new_tokens=run.tokens, streaming=True)
                for prompt in run.prompts(self._module.config.vocab_size)
            ),
            0,
        )
        started, begun = 0.0, 0
        while any(count < run.tokens for count in counts.values()):
            result = manager.get_result(timeout=CB_PATIENCE_S)
            if result is None or result.error:
                raise RuntimeError(f"continuous batching failed: {result and result.error}")
            counts[result.request_id] = len(result.generated_tokens)
            if not started and min(counts.values()) > WARM_STEPS:
                started, begun = time.perf_counter(), sum(counts.values())
        return (time.perf_counter() - started) * run.rows / (sum(counts.values()) - begun)


def _line(kernel: str, took_us: float, calls: int) -> str:
    return f"{took_us / PROFILED_STEPS:9.1f} us a step, {calls / PROFILED_STEPS:6.1f} calls  {kernel[:80]}"


def synchronize(device: torch.device) -> None:
    """Wait for what has been launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _token_bytes(module: PreTrainedModel) -> int:
    config = module.config
    heads, dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers * heads * dim) * module.dtype.itemsize
