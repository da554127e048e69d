"""From what PEFT saves of a LoRA adapter to the changes of each module. What its names and numbers mean:
mesh/checkpoint/lora.py."""

import copy
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mesh.checkpoint.adapter_fit import B_BIAS, EMBEDDING_A, EMBEDDING_B, MAGNITUDE, A, B
from mesh.checkpoint.lora import Recipe, name_of
from services.worker.engine.adapter import Adapter, Change, Gain, LowRank
from services.worker.engine.errors import UnsupportedAdapter


@dataclass(slots=True)
class _Given:
    """An adapter's tensors for one module: those that replace its own, and those that are added to it."""

    own: dict[str, Tensor] = field(default_factory=dict)
    added: dict[str, Tensor] = field(default_factory=dict)


def make_adapter(
    name: str, digest: str, base: PreTrainedModel, tensors: Mapping[str, Tensor], recipe: Recipe
) -> Adapter:
    """Copies of `tensors`, in the dtype and on the device of the base's modules. `base` has its weights assigned.

    Raises UnsupportedAdapter, naming the module that cannot be adapted so.
    """
    homes, given = dict(base.named_modules()), defaultdict[str, _Given](_Given)
    for tensor, value in tensors.items():
        where = name_of(tensor)
        one = given[where.module]
        (one.own if where.own else one.added)[where.own or where.added] = value
    width = base.config.get_text_config(decoder=True).hidden_size
    changes = {path: _change(path, homes.get(path), width, one, recipe) for path, one in given.items()}
    return Adapter(name, digest, {path: change for path, change in changes.items() if change.bytes})


def _change(path: str, home: nn.Module | None, width: int, given: _Given, recipe: Recipe) -> Change:
    if home is None:
        raise UnsupportedAdapter(f"the base has no module {path}")
    if not (_plain(home) or (not given.added and {len(value) for value in given.own.values()} == {width})):
        raise UnsupportedAdapter(f"{path} is a {type(home).__name__}, which is adapted in a way of its own")
    own = {name: _like(home, name, value) for name, value in given.own.items()}
    own = {name: value for name, value in own.items() if not torch.equal(value, home.get_parameter(name))}
    only_bias = own.keys() == {"bias"}
    instead = _with(home, own) if own and not only_bias else None
    shift = own["bias"] - home.get_parameter("bias") if only_bias else None
    if not given.added:
        return Change(instead, shift=shift)
    return _low_rank(instead or home, given.added, recipe, path, Change(instead, shift=shift))


def _plain(home: nn.Module) -> bool:
    """Whether each row, or token id, that it gets makes a row of what it gives, by a matrix."""
    takes = list(inspect.signature(type(home).forward).parameters)[1:]
    return isinstance(home, nn.Linear | Conv1D) or (
        isinstance(home, nn.Embedding) and takes in (["input"], ["input_ids"])
    )


def _low_rank(home: nn.Module, added: Mapping[str, Tensor], recipe: Recipe, path: str, change: Change) -> Change:
    """`change` and what the matrices add. Below, down is [rank, in] and up [out, rank], as PEFT has them."""
    looks_up = EMBEDDING_A in added
    down, up = (added[EMBEDDING_A], added[EMBEDDING_B]) if looks_up else (added[A], added[B])
    scaling = recipe.scaling(path, down.shape[0])
    weight, up, shift = home.get_parameter("weight"), up.float() * scaling, change.shift
    gain = None
    if MAGNITUDE in added:
        factor = added[MAGNITUDE].float() / _norm(weight if isinstance(home, nn.Linear) else weight.t(), down, up)
        gain, up = Gain(factor.to(weight), getattr(home, "bias", None)), up * factor[:, None]
    if B_BIAS in added:
        more = added[B_BIAS].float() * scaling
        shift = (more if shift is None else shift + more).to(weight)
    up = up * getattr(home, "embed_scale", 1.0)  # of embeddings that scale what they look up
    pair = LowRank(_copied(down.t(), weight), _copied(up.t(), weight), looks_up)
    return Change(change.instead, gain, pair, shift)


def _norm(weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Of each row of weight + up @ down, [out], without a matrix of the weight's size."""
    inner = down.float() @ down.float().t()
    own: Tensor = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
    mixed = (weight @ down.t().to(weight)).float() * up
    return (own + 2 * mixed.sum(1) + ((up @ inner) * up).sum(1)).sqrt()


def _copied(matrix: Tensor, weight: Tensor) -> Tensor:
    """In rows, of the weight's dtype, on its device: what `matrix` lies in may go."""
    return matrix.to(weight).clone(memory_format=torch.contiguous_format)


def _like(home: nn.Module, name: str, value: Tensor) -> Tensor:
    """A copy, as the module's parameter of this name would hold it."""
    return value.to(home.get_parameter(name), copy=True)


def _with(home: nn.Module, own: Mapping[str, Tensor]) -> nn.Module:
    """The module with some parameters of its own: nothing that has been hooked or put onto the base's stays on it."""
    made = copy.copy(home)
    made.__dict__.pop("forward", None)
    made._forward_hooks, made._forward_pre_hooks = OrderedDict(), OrderedDict()
    made._parameters = {
        **home._parameters,
        **{name: nn.Parameter(value, requires_grad=False) for name, value in own.items()},
    }
    return made
