"""Small tokenizers of every make, trained here on a few lines."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = ["the curlew flies over the sea and the hill", "once upon a time the größe was calm, 鳥が飛ぶ 🐦"] * 20
END = "<|end|>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@cache
def byte_level() -> Tokenizer:
    """Every byte is a token at least, as in GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["<tool> é"])  # an added token that is no special one, with a byte's character in it
    return tokenizer


@cache
def sentence_piece() -> Tokenizer:
    """A space belongs to the word that follows, and the first one is dropped; the rest is bytes: Llama 2, Mistral."""
    tokenizer = _with_bytes()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    return tokenizer


@cache
def gemma() -> Tokenizer:
    """The same, with nothing put before the text."""
    tokenizer = _with_bytes()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _with_bytes() -> Tokenizer:
    """BPE whose vocabulary begins with the 256 bytes, for what it has never seen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    trained = json.loads(tokenizer.to_str())["model"]
    tokens = ["<unk>", *BYTES, *trained["vocab"]]
    merges = [(left, right) for left, right in trained["merges"]]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    made.add_special_tokens([END])
    return made


@cache
def unigram() -> Tokenizer:
    """SentencePiece without bytes, as in T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", END], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def word_piece() -> Tokenizer:
    """A space is before every token that does not begin with ##, as in BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", END], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def suffixed() -> Tokenizer:
    """A word's last token says so, as in the first GPT; the space shows when the next one comes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>", END], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def words() -> Tokenizer:
    """Whole words, and no decoder at all."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>", END], show_progress=False))
    return tokenizer


KINDS: Mapping[str, Callable[[], Tokenizer]] = MappingProxyType(
    {
        "byte level": byte_level,
        "sentence piece": sentence_piece,
        "gemma": gemma,
        "unigram": unigram,
        "word piece": word_piece,
        "suffixed": suffixed,
        "words": words,
    }
)


def end_id(tokenizer: Tokenizer | None = None) -> int:
    """The token that ends an answer, by default of byte_level()."""
    found = (tokenizer or byte_level()).token_to_id(END)
    assert found is not None
    return found
