import logging
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from services.worker.engine.bodies import build_causal
from services.worker.engine.errors import UnsupportedArchitecture
from services.worker.engine.model import is_packed
from tests.services.worker.engine.opaque_families import OPAQUE
from tests.services.worker.engine.opaque_families import config as opaque
from tests.services.worker.engine.tiny import FAMILIES
from tests.services.worker.engine.tiny import config as packed

WHY = {
    "bloom": "ALiBi",
    "falcon": "cannot be built on paged attention",
    "xglm": "0 of 2 layers",
    "doge": "mask of its own",
    "gemma3n_text": "shares KV",
    "llama4_text": "chunked",
    "phi3:longrope": "longrope rotary",
    "llama:dynamic": "dynamic rotary",
    "mamba2": "hybrid",
    "rwkv": "recurrent",
    "qwen3_next": "hybrid",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_can_be_packed_is(family: str) -> None:
    assert is_packed(build_causal(packed(family), torch.float32, probed=False))


@pytest.mark.parametrize("family", OPAQUE)
def test_what_cannot_be_packed_is_opaque_and_the_log_says_why(family: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module = build_causal(opaque(family), torch.float32, probed=False)
    assert not is_packed(module)
    assert f"{module.config.model_type} runs one sequence at a time" in caplog.text
    assert WHY.get(family, "") in caplog.text


@pytest.mark.parametrize(("family", "settings"), [("bart", {}), ("clip_text_model", {})])
def test_what_neither_can_run_is_refused(family: str, settings: dict[str, Any]) -> None:
    config: PreTrainedConfig = CONFIG_MAPPING[family](**settings)
    with pytest.raises(UnsupportedArchitecture):
        build_causal(config, torch.float32, probed=False)
