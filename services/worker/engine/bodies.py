"""Which runner a model's body is built for."""

import logging

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from services.worker.engine.errors import UnsupportedArchitecture
from services.worker.engine.model import build, build_opaque, probe_kv

log = logging.getLogger(__name__)


def build_causal(
    config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str = "cpu", *, probed: bool
) -> PreTrainedModel:
    """A body for the packed runner where that serves the model, else for the opaque one; the log says why. `probed`
    saves the probe, if an import has seen that it succeeds. UnsupportedArchitecture if transformers cannot build it."""
    try:
        module = build(config, dtype, device)
        if not probed:
            probe_kv(module)
        return module
    except UnsupportedArchitecture as error:
        log.info("%s runs one sequence at a time: %s", config.model_type, error)
    return build_opaque(config, dtype, device)
