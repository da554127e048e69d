"""Packed copies of a module's weights, made bit by bit while it runs: the CPU multiplies by them faster than by the
checkpoint's own layout. Which layers read the same rows is seen in a forward pass, never guessed from names."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from services.worker.engine.product import Product, pack_together

PASSES = 16  # over which packing is spread: it costs as much as some four passes do, and no answer should stall for it


@dataclass(slots=True)
class PackBudget:
    """What packed weights may still take of this worker's memory, over all its replicas. For the engine's thread."""

    left_bytes: int = 0


class Packing:
    """One module's. Nothing is packed before its first pass has ended, so a cold start does not wait for any of it.

    A copy is made where the budget has room for it; layers without one go on reading the checkpoint's bytes.
    """

    def __init__(self, module: nn.Module, budget: PackBudget) -> None:
        self._budget = budget
        homes = [home for home in module.modules() if _is_packable(home)] if budget.left_bytes > 0 else []
        self._watch: Watch | None = Watch(homes) if homes else None
        self._waiting: list[list[nn.Module]] = []  # of what shares its rows; the next to be packed last
        self._share = 0
        self._products: list[Product] = []
        self._in_small_pages: list[Product] = []

    @property
    def bytes(self) -> int:
        """Of the copies made so far."""
        return sum(product.bytes for product in self._products)

    def advance(self) -> None:
        """Call before each forward pass."""
        if self._watch is not None and self._watch.calls:
            self._waiting = self._watch.end()[::-1]
            self._share = math.ceil(len(self._waiting) / PASSES)
            self._watch = None
        if self._waiting:
            for _ in range(min(self._share, len(self._waiting))):
                self._pack(self._waiting.pop())
        elif self._in_small_pages:
            self._in_small_pages.pop().use_huge_pages()

    def close(self) -> None:
        """The module is as it was, and the budget has its bytes back."""
        if self._watch is not None:
            self._watch.end()
        self._budget.left_bytes += self.bytes
        for product in self._products:
            product.detach()
        self._waiting, self._products, self._in_small_pages = [], [], []

    def _pack(self, homes: list[nn.Module]) -> None:
        if sum(home.get_parameter("weight").nbytes for home in homes) <= self._budget.left_bytes:
            product = pack_together(homes)
            self._budget.left_bytes -= product.bytes
            self._products.append(product)
            self._in_small_pages.append(product)


class Watch:
    """Sees which layers are called in a forward pass, in order, and with what."""

    def __init__(self, homes: list[nn.Module]) -> None:
        self._homes = homes
        self._rows: Tensor | None = None  # what the last call read
        self.calls: list[list[nn.Module]] = []  # those in a row that read the same
        for home in homes:
            home.forward = partial(self._call, home, home.forward)

    def end(self) -> list[list[nn.Module]]:
        """Stops watching; the layers that were called, those together that can be one product."""
        for home in self._homes:
            del home.forward
        often = _called_twice(self.calls)
        together = []
        for group in self.calls:
            alike = _alike(group) and not often.intersection(group)
            together += [group] if alike else [[home] for home in group]
        self._rows, self.calls = None, []
        return list({group[0]: group for group in together}.values())

    def _call(self, home: nn.Module, forward: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        if rows is not self._rows:
            self.calls.append([])
        self.calls[-1].append(home)
        self._rows = rows
        return forward(rows)


def _called_twice(calls: list[list[nn.Module]]) -> set[nn.Module]:
    return {home for home, count in Counter(chain.from_iterable(calls)).items() if count > 1}


def _alike(group: list[nn.Module]) -> bool:
    return len({(type(home), home.get_parameter("weight").dtype, home.bias is None) for home in group}) == 1


def _is_packable(home: nn.Module) -> bool:
    if type(home) not in (nn.Linear, Conv1D) or "forward" in vars(home):
        return False
    weight = home.get_parameter("weight")
    return weight.device.type == "cpu" and _has_kernel(weight.dtype)


def _has_kernel(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies the type itself; else packing would gain nothing."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    mkldnn = torch.ops.mkldnn
    return (
        dtype is torch.float32
        or (dtype is torch.bfloat16 and bool(mkldnn._is_mkldnn_bf16_supported()))
        or (dtype is torch.float16 and bool(mkldnn._is_mkldnn_fp16_supported()))
    )
