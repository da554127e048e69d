"""What transformers makes of config.json: a model class, as a skeleton without memory. Weights: weights.py."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from mesh.checkpoint.errors import ShardMismatch, UnsupportedModel
from mesh.checkpoint.source import CONFIG, Source

FOREIGN_ERRORS = (
    RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError,
    ImportError, OSError, StrictDataclassError,
)  # fmt: skip
"""What the code of some two hundred model classes raises when a config does not suit it."""
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
TRAINED_CONTEXT = 2048  # tokens; ALiBi and recurrent models name no limit, and were trained on this many


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model class that transformers itself has, and an instance of it on the meta device."""

    config: PreTrainedConfig
    skeleton: PreTrainedModel

    @property
    def name(self) -> str:
        """The class name, such as LlamaForCausalLM."""
        return type(self.skeleton).__name__

    @property
    def layers(self) -> int:
        """How many layers it has; 0 if config.json does not say."""
        return layer_count(self.config)


def understand(source: Source) -> Architecture:
    """The architecture of a source. Never runs its code. Raises UnsupportedModel, or ShardMismatch on absurd sizes."""
    _refuse_remote_code(source)
    try:
        config = _config(source.config_json)
    except FOREIGN_ERRORS as error:
        raise UnsupportedModel(f"{source.config_path} is refused by transformers: {error}") from error
    _refuse_other_tasks(source, config)
    _refuse_absurd(source, layer_count(config), sum(len(shard.tensors) for shard in source.shards), "layers")
    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, attn_implementation="eager", trust_remote_code=False
            )
    except FOREIGN_ERRORS as error:
        raise UnsupportedModel(f"{source.config_path} builds no model: {error}") from error
    elements = sum(parameter.numel() for parameter in skeleton.parameters())
    _refuse_absurd(source, elements, 2 * source.elements + (1 << 20), "parameters")
    return Architecture(config, skeleton.eval())


def _config(config_json: bytes) -> PreTrainedConfig:
    """By way of a directory of its own: then nothing but the bytes that were checked can play a part."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-config-") as directory:
        Path(directory, CONFIG).write_bytes(config_json)
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return config


def max_context(config: PreTrainedConfig) -> int:
    """The longest prompt and answer together, in tokens."""
    text = config.get_text_config()
    known = (getattr(text, field, None) for field in CONTEXT_FIELDS)
    tokens = next((value for value in known if isinstance(value, int) and value > 0), TRAINED_CONTEXT)
    return min(tokens, 2**31 - 1)


def layer_count(config: PreTrainedConfig) -> int:
    """How many layers config.json promises; 0 if it does not say."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    return layers if isinstance(layers, int) else 0


def _refuse_remote_code(source: Source) -> None:
    """A config may point at code beside it that nobody needs; it must not be the only one with the classes."""
    model_type, names = source.config["model_type"], _architectures(source.config)
    foreign = model_type not in CONFIG_MAPPING or not all(hasattr(transformers, name) for name in names)
    if foreign and "auto_map" in source.config:
        raise UnsupportedModel(
            f"{source.config_path} needs code from the checkpoint ({', '.join(names) or model_type}), "
            "which is never run; use a version of the model that transformers has built in"
        )
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedModel(
            f"{source.config_path} has model_type {model_type!r}, unknown to transformers {transformers.__version__}"
        )


def _refuse_other_tasks(source: Source, config: PreTrainedConfig) -> None:
    ends = ("ForCausalLM", "ForConditionalGeneration")
    others = [name for name in _architectures(source.config) if "For" in name and not name.endswith(ends)]
    if others or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(
            f"{source.config_path} describes {', '.join(others) or config.model_type}, which does not generate text; "
            "only causal language models can be served"
        )


def _refuse_absurd(source: Source, promised: int, held: int, what: str) -> None:
    """Before memory is reserved for it: a config must not promise far more than the shards hold."""
    if promised > held:
        raise ShardMismatch(
            f"{source.config_path} promises {promised} {what}, far more than the shards beside it hold; "
            "they belong to different models"
        )


def _architectures(config: Mapping[str, object]) -> list[str]:
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
