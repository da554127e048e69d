"""How a LoRA adapter is applied, as its adapter_config.json says, and which adapters are not. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

from mesh.checkpoint import strict_json
from mesh.checkpoint.adapter import ADAPTER_CONFIG, read_config
from mesh.checkpoint.adapter_fit import ADDED, MAGNITUDE, OLD_MAGNITUDE, PREFIX, TOKENS, WRAPPER
from mesh.checkpoint.errors import NotACheckpoint, UnsupportedModel

FOREIGN: Mapping[str, str] = MappingProxyType(
    {
        "alora_invocation_tokens": "it begins in the middle of a prompt",
        "trainable_token_indices": "it replaces single tokens' embeddings",
        "target_parameters": "it adapts parameters that no linear layer has, such as fused experts",
        "layer_replication": "it repeats layers of its base",
        "use_qalora": "it pools its inputs (QALoRA)",
        "use_bdlora": "its matrices are block-diagonal",
        "arrow_config": "it routes between adapters",
        "kasa_config": "it changes its base's weights (KaSA)",
        "monteclora_config": "its weights are drawn at random",
        "megatron_config": "its layers are Megatron's",
    }
)
"""What makes a forward pass other than base + scaling * B A, and why it is refused."""
PEFT_ALPHA = 8  # where the file names none
HARMLESS_STARTS = frozenset({"gaussian", "eva", "orthogonal"})  # other named initialisations change the base's weights


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done with an adapter's matrices."""

    alpha: float
    alphas: tuple[tuple[re.Pattern[str], float], ...]  # alpha_pattern, in its order
    by_root: bool  # rsLoRA
    fan_in_fan_out: bool

    def scaling(self, module: str, rank: int) -> float:
        """What B A is multiplied by; the module is named as in the base."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.match(module)), self.alpha)
        return alpha / (sqrt(rank) if self.by_root else rank)


@dataclass(frozen=True, slots=True)
class Name:
    """A tensor of an adapter: the base's module, and what is added to it; or `own`, the parameter that it replaces."""

    module: str
    added: str = ""  # one of adapter_fit.ADDED
    own: str = ""


def recipe(config_json: bytes) -> Recipe:
    """Reads adapter_config.json. Raises UnsupportedModel for what would be applied wrongly, NotACheckpoint."""
    config = strict_json.loads(config_json)
    if not isinstance(config, dict):
        raise NotACheckpoint(f"{ADAPTER_CONFIG} is no JSON object; save the adapter again")
    known = read_config(config, ADAPTER_CONFIG)
    why = [f"{key}: {text}" for key, text in FOREIGN.items() if config.get(key)]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start not in HARMLESS_STARTS:
        why.append(f"init_lora_weights {start!r}: its base's weights were changed; convert it to plain LoRA")
    if why:
        raise UnsupportedModel(f"this adapter cannot be applied ({'; '.join(why)})")
    try:
        patterns = tuple((_pattern(key), float(alpha)) for key, alpha in (config.get("alpha_pattern") or {}).items())
        alpha = float(config.get("lora_alpha", PEFT_ALPHA))
    except (re.error, TypeError, ValueError, AttributeError) as error:
        raise UnsupportedModel(f"{ADAPTER_CONFIG} has no usable lora_alpha or alpha_pattern: {error}") from error
    return Recipe(alpha, patterns, config.get("use_rslora") is True, known.fan_in_fan_out)


def name_of(tensor: str) -> Name:
    """Where a tensor of an adapter belongs. Raises UnsupportedModel for those of experts and of trained tokens."""
    plain = tensor.removeprefix(PREFIX)
    if "experts" in plain.split("."):
        raise UnsupportedModel(f"this adapter cannot be applied ({tensor}: an expert sees other rows than the batch's)")
    added = next((suffix for suffix in ADDED if plain.endswith(suffix)), "")
    if added == TOKENS:
        raise UnsupportedModel(f"this adapter cannot be applied ({tensor}: {FOREIGN['trainable_token_indices']})")
    if added:
        module = plain.removesuffix(added).replace(WRAPPER, "")
        return Name(module, added.replace(OLD_MAGNITUDE, MAGNITUDE))
    module, _, own = plain.replace(WRAPPER, "").rpartition(".")
    return Name(module, own=own)


def check_applied(config_json: bytes, tensors: Iterable[str]) -> None:
    """Raises UnsupportedModel, saying why, for an adapter that cannot be applied."""
    recipe(config_json)
    for tensor in tensors:
        name_of(tensor)


def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")
