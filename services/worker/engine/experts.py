"""A mixture's experts with a fixed number of rows, as transformers' interface for experts wants them: every expert that
a pass asks for sees all of its rows, so that how many tokens chose it does not show in anyone's bits."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward


def fix_rows(module: PreTrainedModel, tile: int) -> dict[str, str | None]:
    """From now on passes of `tile` rows compute experts so; returns what undoes it, for restore()."""
    before: dict[str, str | None] = module.get_experts_implementation()
    name = f"whimbrel_{tile}_rows"
    ALL_EXPERTS_FUNCTIONS.register(name, partial(_experts, tile))
    module.set_experts_implementation(name)
    return before


def restore(module: PreTrainedModel, before: dict[str, str | None]) -> None:
    """As the module was before fix_rows()."""
    module.set_experts_implementation(before)


def _experts(tile: int, home: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """hidden [T, width]; chosen and weights [T, k]: each token's experts and their shares. A pass of another size is a
    chunk alone, whose rows are its own affair."""
    if len(hidden) != tile:
        alone: Tensor = grouped_mm_experts_forward(home, hidden, chosen, weights)
        return alone
    total = torch.zeros_like(hidden)
    for expert in sorted(set(chosen.flatten().tolist())):  # a token's sum has one order
        tokens, places = torch.where(chosen == expert)
        out = _expert(home, expert, hidden)[tokens] * weights[tokens, places, None]
        total.index_add_(0, tokens, out.to(total.dtype))
    return total


def _expert(home: Any, expert: int, hidden: Tensor) -> Tensor:
    """One expert's [T, width] for all tokens."""
    name = "gate_up_proj" if home.has_gate else "up_proj"
    inner = _product(home, name, expert, hidden)
    out = _product(home, "down_proj", expert, home._apply_gate(inner) if home.has_gate else home.act_fn(inner))
    return home.post_expert_norm(out) if getattr(home, "has_post_expert_norm", False) else out


def _product(home: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight: Tensor = getattr(home, name)[expert]
    bias: Tensor | None = getattr(home, f"{name}_bias")[expert] if home.has_bias else None
    return linear(x, weight.T if home.is_transposed else weight, bias)
