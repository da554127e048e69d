"""A model's norms, each as one kernel where a GPU would launch many. Which of its modules are such norms is tried, not
read off their names alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from services.worker.engine.exchanged import Exchanged

SHIFTS = (0.0, 1.0)  # what is added to the weight: nothing by most, one by Gemma's
SCALES = (1.0, 1e-3)  # of what norms are tried on: where eps is added shows in what is small


class NormKernel(Protocol):
    """norm_kernel.norm."""

    def __call__(self, rows: Tensor, weight: Tensor, eps: float, shift: float) -> Tensor:
        """See there."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Norms of one kind compute the same, each with its own weight."""

    made_by: type[nn.Module]
    eps: float
    width: int
    dtype: torch.dtype


class Norms(Exchanged):
    """One model's, its weights assigned. Their last bits may differ from what the model itself computes."""

    def __init__(self, module: nn.Module, kernel: NormKernel) -> None:
        super().__init__()
        for kind, homes in _by_kind(module.modules()).items():
            shift = next((shift for shift in SHIFTS if _agrees(homes[0], kind.eps, kernel, shift)), None)
            if shift is not None:
                for home in homes:
                    self.exchange(home, partial(_normed, home, kind.eps, kernel, shift))


def _by_kind(homes: Iterable[nn.Module]) -> dict[_Kind, list[nn.Module]]:
    kinds: dict[_Kind, list[nn.Module]] = {}
    for home in homes:
        eps = getattr(home, "variance_epsilon", getattr(home, "eps", None))
        weight = home._parameters.get("weight")
        named = type(home).__name__.endswith("RMSNorm") and "forward" not in vars(home)
        if named and isinstance(eps, float) and weight is not None and weight.dim() == 1:
            kinds.setdefault(_Kind(type(home), eps, len(weight), weight.dtype), []).append(home)
    return kinds


def _normed(home: nn.Module, eps: float, kernel: NormKernel, shift: float, rows: Tensor) -> Tensor:
    weight = home.get_parameter("weight")
    if rows.dtype is weight.dtype:
        return kernel(rows, weight, eps, shift)
    normed: Tensor = type(home).forward(home, rows)
    return normed


def _agrees(home: nn.Module, eps: float, kernel: NormKernel, shift: float) -> bool:
    """Whether the kernel gives what the module does, but for rounding."""
    weight = home.get_parameter("weight")
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for scale in SCALES:
            rows = (torch.randn(1, 4, len(weight), generator=generator) + 0.5).mul_(scale).to(weight)
            ours, theirs = kernel(rows, weight, eps, shift).float(), home.forward(rows)
            if theirs.shape != rows.shape or theirs.dtype is not rows.dtype:
                return False
            wrong = (ours - theirs.float()).norm() / theirs.float().norm()
            if not wrong < 4 * torch.finfo(weight.dtype).eps:
                return False
    return True
