"""A model's rotary positions, put on by one kernel where a GPU would launch many. Its attention layers' own code runs,
with one function of it exchanged, and that one only where a trial finds both alike."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from services.worker.engine.exchanged import Exchanged

NAME = "apply_rotary_pos_emb"  # what transformers calls it in every architecture
Rotate = Callable[..., tuple[Tensor, Tensor]]


class RotaryKernel(Protocol):
    """rotary_kernel.rotate."""

    def __call__(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """See there."""


class Rotations(Exchanged):
    """One model's, its weights assigned. Their last bits may differ from what the model itself computes."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype, kernel: RotaryKernel) -> None:
        super().__init__()
        tried: dict[Rotate, bool] = {}
        for home in module.modules():
            forward = _forward(home)
            if forward is not None:
                own: Rotate = forward.__globals__[NAME]
                if own not in tried:
                    tried[own] = _agrees(own, kernel, device, dtype)
                if tried[own]:
                    self.exchange(home, partial(_exchanged(forward, partial(_rotated, own, kernel)), home))


def _forward(home: nn.Module) -> FunctionType | None:
    """Its class's, if that rotates; None, too, where it is wrapped, or has been exchanged already."""
    forward: object = type(home).forward
    if not isinstance(forward, FunctionType) or "forward" in vars(home):
        return None
    return forward if NAME in forward.__code__.co_names and NAME in forward.__globals__ else None


def _exchanged(forward: FunctionType, rotate: Rotate) -> Callable[..., Any]:
    """The same code, which calls `rotate` for its own."""
    names = {**forward.__globals__, NAME: rotate}
    made = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


def _rotated(own: Rotate, kernel: RotaryKernel, query: Tensor, key: Tensor, *turns: Tensor, **options: Any) -> Any:
    """By the kernel, if it is called as in the trial."""
    if options or len(turns) != 2 or not _fits(query, key, *turns):
        return own(query, key, *turns, **options)
    return kernel(query, key, *turns)


def _fits(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    turned = (1, query.shape[2], query.shape[3])
    alike = query.dtype is key.dtype is cos.dtype is sin.dtype and query.shape[3] == key.shape[3]
    whole = cos.shape == sin.shape == turned and query.stride(3) == key.stride(3) == 1
    return alike and whole and query.shape[3] % 2 == 0


def _agrees(own: Rotate, kernel: RotaryKernel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel gives what the model's function does, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 3, 16), (1, 2, 3, 16), (1, 3, 16), (1, 3, 16))
    given = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    try:
        with torch.inference_mode():
            pairs = [(ours.float(), theirs.float()) for ours, theirs in zip(kernel(*given), own(*given), strict=True)]
    except (RuntimeError, TypeError, ValueError):  # its function wants other things
        return False
    tolerance = 4 * torch.finfo(dtype).eps
    return all(a.shape == b.shape and bool((a - b).norm() < tolerance * b.norm()) for a, b in pairs)
