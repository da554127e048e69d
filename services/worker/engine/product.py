"""One multiplication that stands in for the linear layers that read the same rows, by oneDNN with packed weights."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mesh.memory import use_huge_pages

PACKED_FOR_ROWS = 32  # packed for 1 row, several are multiplied at half the speed; from 2 on it makes no difference


class Product:
    """The layers' outputs side by side, [..., sum of sizes]: computed for the first that is called with some rows, kept
    until the last is. So rows must not be changed in place between these calls, which no model of transformers does."""

    def __init__(self, homes: Sequence[nn.Module], weight: Tensor, bias: Tensor | None, sizes: Sequence[int]) -> None:
        self._homes, self._weight, self._bias, self._sizes = homes, weight, bias, list(sizes)
        self._rows: Tensor | None = None  # what the parts were computed from
        self._parts: Sequence[Tensor] = ()
        self.bytes: int = torch.ops.mkldnn._nbytes(weight)
        if len(homes) == 1:
            homes[0].forward = self._multiply
        else:
            for part, home in enumerate(homes):
                home.forward = partial(self._part, part)

    def use_huge_pages(self) -> None:
        """Has the packed weights read through fewer, larger pages: an eighth of the time at one row, less at more."""
        use_huge_pages(torch.ops.mkldnn.data_ptr(self._weight), self.bytes)

    def detach(self) -> None:
        """The layers compute by themselves again."""
        for home in self._homes:
            del home.forward

    def _part(self, part: int, rows: Tensor) -> Tensor:
        if rows is not self._rows:
            self._rows, self._parts = rows, self._multiply(rows).split_with_sizes(self._sizes, -1)
        mine = self._parts[part]
        if part == len(self._sizes) - 1:
            self._rows, self._parts = None, ()
        return mine

    def _multiply(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._weight, self._bias, "none", [], "")
        return product


def pack_together(homes: Sequence[nn.Module]) -> Product:
    """Copies the weights of layers that all have a bias, or none, into one packed matrix."""
    weights = [_by_output(home) for home in homes]
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight.default(
        weights[0].contiguous() if len(weights) == 1 else torch.cat(weights), PACKED_FOR_ROWS
    )
    biases: list[Tensor] = [home.get_parameter("bias") for home in homes if home.bias is not None]
    return Product(homes, packed, torch.cat(biases) if biases else None, [len(weight) for weight in weights])


def _by_output(home: nn.Module) -> Tensor:
    """[outputs, inputs], detached: what is kept of it is memory, not the model's parameter."""
    weight = home.get_parameter("weight").detach()
    return weight.t() if isinstance(home, Conv1D) else weight
