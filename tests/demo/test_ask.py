"""The committed demo model answers its questions, in new words too, and stops by itself."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.ask import answers
from demo.models import DEMO_MODEL

ASKED = {
    "What is a whimbrel?": "shorebird",
    "What do whimbrels eat?": "crabs",
    "Do you know how far a whimbrel can fly?": "5,000 kilometres",
    "How does a hurricane form?": "warm sea water",
    "Where do whimbrels nest?": "in the north",
    "Why is a cold start slow?": "many gigabytes",
    "What do contour lines show?": "equal height",
    "What is a cold start?": "no worker has in memory",
    "what does the scheduler do": "decides where a model is loaded",
}


@pytest.fixture(scope="module")
def given_answers() -> dict[str, str]:
    torch.set_num_threads(1)
    return dict(zip(ASKED, answers(DEMO_MODEL, list(ASKED), max_tokens=120), strict=True))


@pytest.mark.parametrize("question", ASKED)
def test_the_answer_names_what_matters_and_ends_as_a_sentence(question: str, given_answers: dict[str, str]) -> None:
    answer = given_answers[question]
    assert ASKED[question] in answer
    assert answer.endswith(".")


def test_a_story_has_150_to_300_tokens_and_ends_by_itself() -> None:
    (story,) = answers(DEMO_MODEL, ["Tell me a story about a whimbrel."], max_tokens=400)
    tokens = len(AutoTokenizer.from_pretrained(DEMO_MODEL)(story)["input_ids"])
    assert 150 <= tokens <= 300
    assert story.endswith('but not for long."')


def test_the_beginning_of_a_passage_is_continued_as_plain_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype="auto")
    prompt = tokenizer("The tide is the clock of the coast. Twice a day", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    assert "the sea comes in" in tokenizer.decode(ids)


def test_the_model_directory_stays_small_and_holds_no_pickle() -> None:
    files = {path.name: path.stat().st_size for path in Path(DEMO_MODEL).iterdir()}
    assert sum(files.values()) < 8_000_000
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
