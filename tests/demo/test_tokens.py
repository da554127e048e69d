"""The committed tokenizer keeps every text as it is and renders chats."""

from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from demo.models import DEMO_MODEL


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


@settings(deadline=None)
@given(text=st.text())
def test_any_text_comes_back_as_it_went_in(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


@pytest.mark.parametrize("text", ["Don't stop , please .", "  two  spaces\n\n\ttab", "鳥は飛ぶ 🐦", "3.14 km"])
def test_spaces_signs_and_other_scripts_survive(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_chat_renders_with_all_roles_and_room_for_the_reply(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What is fog? "},
        {"role": "assistant", "content": "A cloud."},
        {"role": "user", "content": "And dew?"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|bos|><|system|>Be brief.<|end|><|user|>What is fog?<|end|>"
        "<|assistant|>A cloud.<|end|><|user|>And dew?<|end|><|assistant|>"
    )
    closed = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    assert rendered == closed + "<|assistant|>"


def test_each_mark_of_a_chat_is_one_token(tokenizer: Any) -> None:
    ids = tokenizer("<|user|><|end|><|assistant|><|system|>", add_special_tokens=False)["input_ids"]
    assert len(ids) == len(set(ids)) == 4
    assert ids[1] == tokenizer.eos_token_id


def test_an_unknown_role_is_refused_with_the_roles_that_exist(tokenizer: Any) -> None:
    with pytest.raises(jinja2.exceptions.TemplateError, match="system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
