"""Asks a saved model questions by greedy decoding, and scores it on wordings that it was not trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.corpus import Entry
from demo.examples import Turn
from demo.tokens import chat_ids


def answers(directory: Path, questions: Sequence[str], max_tokens: int = 1200, rows: int = 32) -> list[str]:
    """The model's greedy answer to each question, as a chat of one turn, `rows` at once. Cut after `max_tokens`."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    prompts = [chat_ids(tokenizer, [Turn("user", question)]) for question in questions]
    given: list[str] = []
    for start in range(0, len(prompts), rows):
        padded = tokenizer.pad({"input_ids": prompts[start : start + rows]}, return_tensors="pt", padding_side="left")
        with torch.inference_mode():
            ids = model.generate(**padded, max_new_tokens=max_tokens, do_sample=False)
        given += tokenizer.batch_decode(ids[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
    return given


def score(directory: Path, entries: Sequence[Entry]) -> Iterator[str]:
    """Lines of a report: how many held-out wordings get exactly the written answer, and which do not."""
    asked = [(question, entry.answer) for entry in entries for question in entry.held_out]
    given = answers(directory, [question for question, _ in asked])
    right = sum(answer == expected for answer, (_, expected) in zip(given, asked, strict=True))
    yield f"{right} of {len(asked)} questions in wordings never seen are answered exactly as written"
    for answer, (question, expected) in zip(given, asked, strict=True):
        if answer != expected:
            yield f"  {question} -> {answer[:90]!r}"
