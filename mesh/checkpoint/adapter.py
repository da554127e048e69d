"""What a PEFT directory's adapter_config.json says, as far as we act on it. The file itself travels along, whole."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.checkpoint.errors import NotACheckpoint, UnsupportedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
KIND = "LORA"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A LoRA adapter, as far as its import needs it. How it is applied: lora.py."""

    ranks: frozenset[int]
    """r, and those of rank_pattern."""

    fan_in_fan_out: bool
    """Whether base weights are [in, out], as GPT-2 has them."""

    base_name: str
    """What it calls its base, for people; may be empty."""


def read_config(config: Mapping[str, object], path: str) -> AdapterConfig:
    """Raises UnsupportedModel for what is no LoRA, NotACheckpoint for what is no adapter_config.json."""
    if config.get("peft_type") != KIND:
        raise UnsupportedModel(
            f"{path} has peft_type {config.get('peft_type')!r}; only {KIND} adapters can be imported"
        )
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        raise NotACheckpoint(f"{path} has a rank_pattern that is no object; save the adapter again")
    ranks = [config.get("r"), *pattern.values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise NotACheckpoint(f"{path} has an r or a rank_pattern that is no positive number; save the adapter again")
    base_name = config.get("base_model_name_or_path")
    return AdapterConfig(
        ranks=frozenset(rank for rank in ranks if isinstance(rank, int)),
        fan_in_fan_out=config.get("fan_in_fan_out") is True,
        base_name=base_name if isinstance(base_name, str) else "",
    )
