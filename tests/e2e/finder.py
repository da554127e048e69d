"""A text encoder as sentence-transformers leaves one: BERT, its WordPiece tokenizer, and how to pool."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CORPUS = ["a bird of the shore flies over the sea", "the ship sails in the storm", "long bills, long legs: curlews"]
CONTEXT = 32  # tokens


def write_finder(directory: Path, mode: str = "pooling_mode_mean_tokens") -> Path:
    """Writes it."""
    torch.manual_seed(11)
    tokenizer = wordpiece()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
    )
    BertModel(config).save_pretrained(directory)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({mode: True, "word_embedding_dimension": 32}))
    return directory


def wordpiece() -> Tokenizer:
    """Trained on three lines."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@torch.inference_mode()
def hidden_states(source: Path, ids: Sequence[int]) -> torch.Tensor:
    """Of the last layer, [tokens, width], by transformers alone."""
    auto: Any = AutoModel
    model = auto.from_pretrained(source, dtype=torch.float32).eval()
    hidden: torch.Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return hidden
