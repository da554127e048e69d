"""The engines that ours is compared with, each as a process that has it would use it. They run where it is installed:
nothing is imported here but torch and what the engine needs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from benchmarks.engine.batch import Batch, Outcome, Watch

MOST_PROMPTS, MOST_TOKENS = 32, 2048  # at once, and of one
CB_PAGE_TOKENS, CB_BATCH_TOKENS = 32, 512
VLLM_BLOCK_TOKENS = 128


class Engine(Protocol):
    """One model, ready to answer."""

    def run(self, batch: Batch) -> Outcome:
        """All of it, at once."""


class Generate:
    """transformers' generate, with its own cache and sdpa; prompts of one length, so nothing is padded."""

    def __init__(self, directory: Path, dtype: str) -> None:
        self.model = pretrained(directory, dtype)

    def run(self, batch: Batch) -> Outcome:
        """See Engine."""
        import torch  # noqa: PLC0415

        watch = Watch(len(batch.prompts))

        def on_step(ids: Any, scores: Any, **_: Any) -> Any:
            for prompt in range(len(ids)):
                watch.first(prompt)
            return torch.zeros(len(ids), dtype=torch.bool)

        ids = torch.tensor(batch.prompts)
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=batch.tokens,
                do_sample=False,
                stopping_criteria=[on_step],
            )
        return watch.outcome(output[:, ids.shape[1] :].tolist())


class ContinuousBatching:
    """transformers' own continuous batching: one manager that stays, asked for each prompt's tokens as they come."""

    def __init__(self, directory: Path, dtype: str) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig  # noqa: PLC0415

        pages = MOST_PROMPTS * 256 // CB_PAGE_TOKENS + MOST_TOKENS // CB_PAGE_TOKENS
        own = ContinuousBatchingConfig(
            num_blocks=pages, page_size=CB_PAGE_TOKENS, max_batch_tokens=CB_BATCH_TOKENS, allow_block_sharing=False
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)  # type: ignore[no-untyped-call]
        self.manager = pretrained(directory, dtype).init_continuous_batching(greedy, own)
        self.manager.start()

    def run(self, batch: Batch) -> Outcome:
        """See Engine."""
        watch = Watch(len(batch.prompts))
        answers: list[Sequence[int]] = [()] * len(batch.prompts)
        order = {
            self.manager.add_request(list(prompt), max_new_tokens=batch.tokens, streaming=True): number
            for number, prompt in enumerate(batch.prompts)
        }
        unfinished = len(order)
        while unfinished:
            result = self.manager.get_result()
            if result is None or result.error:
                raise RuntimeError(f"continuous batching failed: {result and result.error}")
            watch.first(order[result.request_id])
            if result.is_finished():
                answers[order[result.request_id]] = result.generated_tokens
                unfinished -= 1
        return watch.outcome(answers)


class Vllm:
    """vllm on the CPU, eager, in this process: its engine is stepped by hand so that first tokens are seen."""

    def __init__(self, directory: Path, dtype: str) -> None:
        from vllm import EngineArgs, LLMEngine  # noqa: PLC0415

        self._batches = 0
        self.engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=str(directory),
                dtype=dtype,
                skip_tokenizer_init=True,
                enforce_eager=True,
                max_model_len=MOST_TOKENS,
                max_num_seqs=MOST_PROMPTS,
                enable_prefix_caching=False,
                disable_log_stats=True,
            )
        )

    def run(self, batch: Batch) -> Outcome:
        """See Engine."""
        from vllm import SamplingParams, TokensPrompt  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        self._batches += 1
        watch = Watch(len(batch.prompts))
        answers: list[list[int]] = [[] for _ in batch.prompts]
        params = SamplingParams(
            temperature=0.0,
            max_tokens=batch.tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        for number, prompt in enumerate(batch.prompts):
            self.engine.add_request(f"{self._batches}.{number}", TokensPrompt(prompt_token_ids=list(prompt)), params)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                number = int(output.request_id.partition(".")[2].partition("-")[0])
                watch.first(number)
                answers[number] += output.outputs[0].token_ids
        return watch.outcome(answers)


def pretrained(directory: Path, dtype: str) -> Any:
    """The model as transformers loads it, without an end token of its own."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(directory, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


ENGINES: Mapping[str, Callable[[Path, str], Engine]] = MappingProxyType(
    {"generate": Generate, "hf_cb": ContinuousBatching, "vllm_cpu": Vllm}
)
