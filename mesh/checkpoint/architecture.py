"""What transformers makes of config.json: a model class, as a skeleton without memory. Weights: weights.py."""

import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from mesh.checkpoint.errors import ShardMismatch, UnsupportedModel
from mesh.checkpoint.runners import stretch
from mesh.checkpoint.source import CONFIG, Source
from mesh.checkpoint.tasks import embeds

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
    options: Mapping[str, Any] = field(default_factory=dict)  # what its class is called with, beside the config

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
    options = _options(source)
    try:
        with torch.device("meta"):
            skeleton: Any = _builder(source, config)(config, attn_implementation="eager", **options)
    except FOREIGN_ERRORS as error:
        raise UnsupportedModel(f"{source.config_path} builds no model: {error}") from error
    elements = sum(parameter.numel() for parameter in skeleton.parameters())
    _refuse_absurd(source, elements, 2 * source.elements + (1 << 20), "parameters")
    return Architecture(config, skeleton.eval(), options)


def body_options(architecture: str, tensors: Iterable[str]) -> Mapping[str, Any]:
    """How to build a class that embeds for weights of these names: many have been stored without their pooler."""
    takes = inspect.signature(getattr(transformers, architecture)).parameters
    if "add_pooling_layer" not in takes:
        return {}
    return {"add_pooling_layer": any("pooler." in name for name in tensors)}


def _options(source: Source) -> Mapping[str, Any]:
    name = next(iter(_architectures(source.config)), "")
    names = (tensor.name for shard in source.shards for tensor in shard.tensors)
    return body_options(name, names) if embeds(name) else {}


def _builder(source: Source, config: PreTrainedConfig) -> Callable[..., PreTrainedModel]:
    """The class that config.json names, if it embeds; else the causal language model of its type."""
    name = next(iter(_architectures(source.config)), "")
    auto: Any = getattr(transformers, name)._from_config if embeds(name) else AutoModelForCausalLM.from_config
    return auto  # type: ignore[no-any-return]


def _config(config_json: bytes) -> PreTrainedConfig:
    """By way of a directory of its own: then nothing but the bytes that were checked can play a part."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-config-") as directory:
        Path(directory, CONFIG).write_bytes(config_json)
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return config


def max_context(architecture: Architecture) -> int:
    """The longest prompt and answer together, in tokens."""
    text = architecture.config.get_text_config()
    known = (getattr(text, name, None) for name in CONTEXT_FIELDS)
    tokens = next((value for value in known if isinstance(value, int) and value > 0), TRAINED_CONTEXT)
    return min(int(tokens * stretch(text)) - _positions_before(architecture.skeleton), 2**31 - 1)


def _positions_before(skeleton: nn.Module) -> int:
    """RoBERTa and its kin count positions from the one after the padding's."""
    tables = (m for name, m in skeleton.named_modules() if name.endswith("embeddings.position_embeddings"))
    paddings = (table.padding_idx for table in tables if isinstance(table, nn.Embedding))
    return sum(padding + 1 for padding in paddings if padding is not None)


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
    names = _architectures(source.config)
    if names and embeds(names[0]):
        return
    others = [name for name in names if "For" in name and not name.endswith(ends)]
    if others or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(
            f"{source.config_path} describes {', '.join(others) or config.model_type}, which does not generate text "
            "and is no text encoder; only causal language models and encoders can be served"
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
