"""What a checkpoint is for, by the class that its config names: to go on with a text, or to turn one into a vector."""

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

MASKED = "ForMaskedLM"


def embeds(architecture: str) -> bool:
    """Whether a class of this name gives vectors and no next token: an encoder of text, or a model without its head."""
    return architecture in _BODIES or (architecture.endswith(MASKED) and architecture in _MASKED)


def _bodies() -> frozenset[str]:
    texts = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() | MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    names = (MODEL_MAPPING_NAMES.get(model_type) for model_type in texts)
    return frozenset(name for name in names if isinstance(name, str) and name.endswith("Model"))


_MASKED = frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
_BODIES = _bodies() - frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
