"""A second witness, who knows nothing of our engine: stock transformers, on greedy answers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from chaos.heard import Heard
from chaos.questions import Question, Sort
from chaos.stage import Library

MOST = 24  # answers that are looked at: each takes seconds


def disagreements(heard: Sequence[Heard], shelf: Library) -> tuple[int, list[str]]:
    """How many greedy answers were compared, and where transformers says another token."""
    asked = {(one.question.model, one.question.prompt): one for one in sorted(heard, key=lambda one: one.tokens)}
    whole = [one for one in asked.values() if one.question.sort is Sort.GREEDY and one.finished][:MOST]
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    auto: Any = AutoModelForCausalLM
    models = {name: auto.from_pretrained(path) for name, path in shelf.sources.items()}
    tokenizers = {name: AutoTokenizer.from_pretrained(path) for name, path in shelf.sources.items()}
    said = [_first_other(one, models[one.question.model], tokenizers[one.question.model]) for one in whole]
    return len(whole), [text for text in said if text]


@torch.inference_mode()
def _first_other(heard: Heard, model: Any, tokenizer: Any) -> str:
    asked: Question = heard.question
    prompt = tokenizer(asked.prompt, return_tensors="pt").input_ids
    tokens = heard.answers[0].tokens
    ids = model.generate(prompt, max_new_tokens=len(tokens), min_new_tokens=len(tokens), do_sample=False)
    other = ids[0, prompt.shape[1] :].tolist()
    at = next((i for i, (one, two) in enumerate(zip(tokens, other, strict=False)) if one != two), None)
    return "" if at is None else f"{asked.request_id} ({asked.model}): token {at} of {len(tokens)}"
