"""What a LoRA adapter does to the modules of its base, ready to be applied to rows of a batch.
Read from PEFT's tensors in peft.py; which rows it is applied to: adapters.py."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import embedding


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """out += (x @ down) @ up, the scaling within `up`."""

    down: Tensor  # [in, rank]
    up: Tensor  # [rank, out]
    looks_up: bool = False  # x are token ids: rows of `down`

    def add(self, x: Tensor, out: Tensor) -> None:
        """x [rows, in] or ids [rows]; out [rows, out] in place."""
        out.addmm_(embedding(x, self.down) if self.looks_up else x @ self.down, self.up)


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """DoRA: what the module gives, its bias left out, times a factor for each output."""

    factor: Tensor  # [out]
    bias: Tensor | None  # the module's

    def scale(self, out: Tensor) -> None:
        """out [rows, out] in place."""
        if self.bias is None:
            out.mul_(self.factor)
        else:
            out.sub_(self.bias).mul_(self.factor).add_(self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """All that an adapter does to one module, in the order of the fields."""

    instead: nn.Module | None = None  # the module, with parameters of the adapter's own
    gain: Gain | None = None
    low_rank: LowRank | None = None
    shift: Tensor | None = None  # [out], added

    def apply(self, x: Tensor, out: Tensor) -> None:
        """`out` [rows, out], what the base gave for rows `x`, becomes what the adapted model gives."""
        if self.instead is not None:
            out.copy_(self.instead(x))
        if self.gain is not None:
            self.gain.scale(out)
        if self.low_rank is not None:
            self.low_rank.add(x, out)
        if self.shift is not None:
            out.add_(self.shift)

    @property
    def bytes(self) -> int:
        """Of what it holds; 0: it changes nothing."""
        held: list[Tensor] = [] if self.instead is None else list(self.instead.parameters())
        held += [] if self.gain is None else [self.gain.factor]
        held += [] if self.low_rank is None else [self.low_rank.down, self.low_rank.up]
        held += [] if self.shift is None else [self.shift]
        return sum(tensor.nbytes for tensor in held)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter made for one base. `digest` is its checkpoint's: KV is shared only between requests of equal ones."""

    name: str
    digest: str
    changes: Mapping[str, Change]  # by the base's module
