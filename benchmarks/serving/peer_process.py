"""The peer of a cold start: a fresh Python process that loads a model with transformers and generates one token.

python -m benchmarks.serving.peer_process DIRECTORY PROMPT prints one FreshStart as JSON. Its clock starts at its first
line; whoever starts it sees the interpreter's own start as well.
"""

import sys
import time
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from benchmarks.child import reply


@dataclass(frozen=True, slots=True)
class FreshStart:
    """Where the time went, and what came of it."""

    import_s: float
    load_s: float
    generate_s: float
    prompt_tokens: int
    first_token: int


FRESH_START: TypeAdapter[FreshStart] = TypeAdapter(FreshStart)


def fresh_start(directory: str, prompt: str) -> FreshStart:
    """As a container does that serves one model and was scaled from zero."""
    began_s = time.perf_counter()
    import torch  # noqa: PLC0415  importing is part of what is measured
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    imported_s = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    loaded_s = time.perf_counter()
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    generated_s = time.perf_counter()
    return FreshStart(
        import_s=imported_s - began_s,
        load_s=loaded_s - imported_s,
        generate_s=generated_s - loaded_s,
        prompt_tokens=inputs["input_ids"].shape[1],
        first_token=int(output[0, -1]),
    )


if __name__ == "__main__":
    reply(FRESH_START.dump_json(fresh_start(*sys.argv[1:3])).decode())
