"""A second witness, who knows nothing of our engine: stock transformers, on greedy answers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from chaos.heard import Heard
from chaos.questions import Question, Sort
from chaos.stage import MODELS, Library

MOST = 24  # answers that are looked at: each takes seconds


def disagreements(heard: Sequence[Heard], shelf: Library) -> tuple[int, list[str]]:
    """How many greedy answers were compared, and where transformers says another token."""
    auto: Any = AutoModelForCausalLM
    # the trained one is bfloat16, where sums in another order turn the nearly equal about
    sources = {model.name: shelf.sources[model.name] for model in MODELS if model.kind}
    models = {name: auto.from_pretrained(path) for name, path in sources.items()}
    tokenizers = {name: AutoTokenizer.from_pretrained(path) for name, path in sources.items()}
    greedy = _longest([one for one in heard if one.question.model in sources])
    said = [_first_other(one, models[one.question.model], tokenizers[one.question.model]) for one in greedy]
    return len(greedy), [text for text in said if text]


def _longest(heard: Sequence[Heard]) -> list[Heard]:
    """Whole greedy answers, of each prompt and model the longest."""
    greedy = [one for one in heard if one.question.sort is Sort.GREEDY and one.finished]
    by_tokens = sorted(greedy, key=lambda one: one.tokens)
    return list({(one.question.model, one.question.prompt): one for one in by_tokens}.values())[:MOST]


@torch.inference_mode()
def _first_other(heard: Heard, model: Any, tokenizer: Any) -> str:
    asked: Question = heard.question
    prompt = tokenizer(asked.prompt, return_tensors="pt").input_ids
    tokens = heard.answers[0].tokens
    model.generation_config.eos_token_id = None  # as asked: it may come, and does not end the answer
    ids = model.generate(prompt, max_new_tokens=len(tokens), do_sample=False)
    other = ids[0, prompt.shape[1] :].tolist()
    at = next((i for i, (one, two) in enumerate(zip(tokens, other, strict=False)) if one != two), None)
    return "" if at is None else f"{asked.request_id} ({asked.model}): token {at} of {len(tokens)}"
