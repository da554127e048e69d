"""A tokenizer for the tiny models' vocabulary, and guides for their answers."""

import json
from functools import cache

from llguidance import LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mesh.requests import Guide, GuideKind
from services.worker.engine.guide import Grammar

END = "<|end|>"
CORPUS = ['{"name": "curlew", "legs": 2, "wings": true}', "größe 鳥 🐦 \\u00e9"] * 20
BIRD = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 6},
            "legs": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["wader", "gull"]},
        },
        "required": ["name", "legs", "kind"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},  # a random model would put in white space without end
    }
)
SCHEMA = Guide(GuideKind.JSON_SCHEMA, BIRD)
DATE = Guide(GuideKind.REGEX, r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]")


@cache
def byte_level() -> Tokenizer:
    """400 tokens: every byte, some words, and an end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def end_id() -> int:
    """The token that ends an answer."""
    return int(byte_level().token_to_id(END))


@cache
def grammar(guide: Guide) -> Grammar:
    """Compiled for the tokenizer above."""
    return Grammar(LLTokenizer(byte_level().to_str(), eos_token=[end_id()]), guide)


def text_of(tokens: tuple[int, ...]) -> str:
    """An answer as text, without its end."""
    return str(byte_level().decode(list(tokens), skip_special_tokens=True))
