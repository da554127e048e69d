"""A model that gives the lie to every numerics level: what a row gets depends on the rows beside it."""

from typing import Any

from torch import Tensor, nn

from services.worker.engine.packed_replica import PackedReplica


class _Leaky(nn.Module):
    """Adds a trace of the other rows, as a product would whose order of summing followed its neighbours."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self._inner(hidden)
        return out + out.mean() * 1e-6


def make_leaky(replica: PackedReplica) -> None:
    """From now on; of a llama."""
    layers: Any = replica.module.model.layers
    layers[0].mlp = _Leaky(layers[0].mlp)
