"""The demo tokenizer: a byte-level BPE trained on the corpus, its special tokens and its chat template."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from demo.examples import Document, Turn

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (BOS, END, PAD, "<|system|>", "<|user|>", "<|assistant|>")
BEGINNING = 8  # tokens of a reply, its mark included, that choose which answer it is
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('This model knows the roles system, user and assistant, not ' + message['role'] + '.') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learns at most `vocab_size` tokens. Encoding plain text puts the start token first, as Llama does."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    fast: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = fast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    return wrapped


@dataclass(frozen=True, slots=True)
class Sample:
    """One document as token ids, and for each id how much it counts in the loss."""

    ids: list[int]
    weights: list[float]


def encode(tokenizer: PreTrainedTokenizerFast, document: Document) -> Sample:
    """A training sample from start token to end token; of a chat that is not whole, to the last reply's beginning."""
    if isinstance(document, str):
        ids: list[int] = tokenizer(document + END)["input_ids"]
        return Sample(ids, [1.0] * len(ids))
    ids, weights = [tokenizer.bos_token_id], [0.0]
    for turn in document.turns:
        added: list[int] = tokenizer(f"<|{turn.role}|>{turn.content}{END}", add_special_tokens=False)["input_ids"]
        ids += added
        weights += _weights(turn, len(added))
    kept = len(ids) if document.whole else len(ids) - len(added) + BEGINNING
    return Sample(ids[:kept], weights[:kept])


def _weights(turn: Turn, tokens: int) -> list[float]:
    """Replies count most, and most of all their first words, which choose the answer. Questions count a little."""
    if turn.role != "assistant":
        return [0.05] * tokens
    return [0.05] + [3.0] * (BEGINNING - 1) + [1.0] * (tokens - BEGINNING)


def chat_ids(tokenizer: PreTrainedTokenizerFast, turns: Iterable[Turn]) -> list[int]:
    """Token ids of a chat up to where the assistant is to begin."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
