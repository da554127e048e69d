"""Which unit a tensor belongs to, read off the model: its layer list, its experts, the order of a forward pass."""

from collections.abc import Iterator, Mapping

from torch import nn

from mesh.checkpoint.architecture import Architecture
from mesh.checkpoint.expression import Expression
from mesh.checkpoint.plan import Placement
from mesh.checkpoint.probe import Trace
from mesh.checkpoint.records import UnitKind
from mesh.checkpoint.weights import Weights, dtype_name


def place(architecture: Architecture, weights: Weights, trace: Trace) -> Iterator[Placement]:
    """A placement for every stored tensor, those of a layer in the model's own order."""
    layers = f"{_layer_list(architecture.skeleton)}."
    early = _before_layers(architecture.skeleton, trace, layers)
    experts = _experts_by_layer(architecture.skeleton, weights.tensors, layers)
    for name, tensor in weights.tensors.items():
        layer = _layer_of(name, layers)
        if layer is not None:
            kind = UnitKind.EXPERT if name in experts.get(layer, ()) else UnitKind.LAYER
        else:
            kind = UnitKind.EMBEDDING if _owner(name) in early else UnitKind.HEAD
        yield Placement(name, dtype_name(tensor.dtype), tensor.shape, kind, layer)


def _layer_list(model: nn.Module) -> str:
    """Name of the outermost ModuleList that holds the most weights."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return max(outer, key=lambda name: _elements(lists[name]), default="")


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layer_of(name: str, layers: str) -> int | None:
    index = name.removeprefix(layers).split(".", 1)[0]
    return int(index) if name.startswith(layers) and index.isdecimal() else None


def _before_layers(model: nn.Module, trace: Trace, layers: str) -> frozenset[str]:
    """Modules used before the first layer; embeddings, if the traced pass did not get as far as a layer."""
    for position, name in enumerate(trace.modules):
        if name.startswith(layers):
            return frozenset(trace.modules[:position])
    return frozenset(name for name, module in model.named_modules() if isinstance(module, nn.Embedding))


def _experts_by_layer(model: nn.Module, tensors: Mapping[str, Expression], layers: str) -> Mapping[int, frozenset[str]]:
    """For each layer the fused tensors: their first dimension counts the experts of the module that owns them."""
    found: dict[int, dict[str, int]] = {}
    for name, tensor in tensors.items():
        layer, owner = _layer_of(name, layers), model.get_submodule(_owner(name))
        count = getattr(owner, "num_experts", None)
        if layer is not None and type(owner).__name__.endswith("Experts") and tensor.shape[:1] == (count,):
            found.setdefault(layer, {})[name] = tensor.shape[0]
    return {
        layer: frozenset(name for name, count in counts.items() if count == max(counts.values()) and count > 1)
        for layer, counts in found.items()
    }


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
