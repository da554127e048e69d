"""Tensors without numbers, that write down what is done to them: transformers' loader runs on them, nothing is read.

What an operator means for rows is known for those that loaders use; any other, and one that writes into a tensor, is
written down as it is, and computed as a whole. One that looks at how a tensor lies in memory is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar, Self

import torch
from torch.utils import _pytree as pytree

from mesh.checkpoint.errors import CheckpointError, UnsupportedModel
from mesh.checkpoint.expression import Apply, Expression, Leaf, cast, cat, constant, cut, permute
from mesh.checkpoint.stream import Reader

aten = torch.ops.aten
Rule = Callable[..., Expression | list[Expression]]
LAYOUT = (aten.as_strided.default,)
"""Operators that depend on strides, which an expression does not have; others have torch's tag inplace_view."""


FACTORIES = (
    aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default, aten.full_like.default,
    aten.rand_like.default, aten.randn_like.default, aten.new_empty.default, aten.new_empty_strided.default,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
)  # fmt: skip
"""Operators that look at a tensor's kind alone; what they make is real, and may be changed."""


class Tracer:
    """Makes symbolic tensors, and answers what a loader wants to know of their numbers, which `reader` then reads.

    A loader may swallow an exception and raise one of its own: `failure` is the first that was raised here.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._first: dict[int, tuple[Expression, torch.Tensor]] = {}  # by storage: what it was made as
        self._changed: dict[int, Expression] = {}  # by storage that was written to: all its elements as they are now
        self.failure: CheckpointError | None = None

    def tensor(self, leaf: Leaf) -> "Symbolic":
        """The tensor that a range of a shard holds."""
        return self._symbol(leaf, torch.empty(leaf.shape, dtype=leaf.dtype, device="meta"))

    def expression(self, tensor: "Symbolic") -> Expression:
        """How it is made, as of now."""
        changed = self._changed.get(_storage(tensor.shadow))
        if changed is None:
            return tensor.made
        where = (list(tensor.shape), list(tensor.stride()), tensor.storage_offset())
        return Apply(tensor.dtype, tuple(tensor.shape), aten.as_strided.default, (changed, *where), {}, None)

    def record(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What `operator` gives: symbolic tensors, or a value that is no tensor, for which numbers are read."""
        try:
            return self._recorded(operator, args, kwargs)
        except CheckpointError as error:
            self.failure = self.failure or error
            raise

    def _recorded(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if operator is aten.equal.default:
            return self._reader.equal(*map(expression_of, args))
        if operator in FACTORIES:
            return operator(*pytree.tree_map_only(Symbolic, _blank, args), **kwargs)
        if operator in LAYOUT or torch.Tag.inplace_view in operator.tags:
            raise _refused(operator)
        if operator._schema.is_mutable:
            return self._write(operator, args, kwargs)
        if any(str(result.type) not in {"Tensor", "List[Tensor]"} for result in operator._schema.returns):
            return operator(*pytree.tree_map_only(Symbolic, self._value, args), **kwargs)
        shadows = pytree.tree_map_only(torch.Tensor, _shadow, args)
        settings = {name: torch.device("meta") if name == "device" else value for name, value in kwargs.items()}
        made = operator(*shadows, **pytree.tree_map_only(torch.Tensor, _shadow, settings))
        rule = RULES.get(operator)
        if isinstance(made, torch.Tensor):
            one: Any = rule(made, *args, **kwargs) if rule else _generic(operator, args, kwargs, None, made)
            return self._symbol(one, made)
        many: Any = (
            rule(made, *args, **kwargs)
            if rule
            else [_generic(operator, args, kwargs, index, each) for index, each in enumerate(made)]
        )
        return [self._symbol(each, shadow) for each, shadow in zip(many, made, strict=True)]

    def _symbol(self, made: Expression, shadow: torch.Tensor) -> "Symbolic":
        self._first.setdefault(_storage(shadow), (made, shadow))
        return Symbolic(self, made, shadow)

    def _write(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """An operator that changes its first argument; every view of that memory sees it."""
        target: torch.Tensor = args[0]
        if not isinstance(target, Symbolic):
            written: torch.Tensor = operator(*pytree.tree_map_only(Symbolic, self._value, args), **kwargs)
            return written
        key = _storage(target.shadow)
        first, shadow = self._first[key]
        if not shadow.is_contiguous() or shadow.storage_offset() or shadow.dtype != target.dtype:
            raise _refused(operator)
        value = _generic(partial(_changed_by, operator), args, kwargs, None, target)
        elements = (shadow.numel(),)
        before = self._changed.get(key, first.reshape(elements))
        where = (list(target.shape), list(target.stride()), target.storage_offset())
        self._changed[key] = Apply(
            target.dtype, elements, aten.as_strided_scatter.default, (before, value, *where), {}, None
        )
        return target

    def _value(self, tensor: "Symbolic") -> torch.Tensor:
        return self._reader.compute(self.expression(tensor))


class Symbolic(torch.Tensor):
    """Looks like a tensor on the host; has an expression in place of memory.

    `shadow` is a tensor on the meta device to which the same was done: it has the strides, and shares its storage with
    the shadows of views of the same.
    """

    tracer: Tracer
    made: Expression  # as it was then; tracer.expression() knows of changes since
    shadow: torch.Tensor
    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[Self], tracer: Tracer, expression: Expression, shadow: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            shadow.shape,
            strides=shadow.stride(),
            storage_offset=shadow.storage_offset(),
            dtype=shadow.dtype,
            device=torch.device("cpu"),
        )
        made.tracer, made.made, made.shadow = tracer, expression, shadow
        return made

    def __repr__(self, **_kwargs: object) -> str:  # type: ignore[override]
        return f"Symbolic({self.dtype}, {tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tracer = next(each.tracer for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Symbolic))
        return tracer.record(operator, args, kwargs)


def expression_of(tensor: torch.Tensor) -> Expression:
    """The recipe of a symbolic tensor; any other is a constant."""
    return tensor.tracer.expression(tensor) if isinstance(tensor, Symbolic) else constant(tensor.detach())


def memory_of(tensor: torch.Tensor) -> object:
    """Equal for two tensors that would be the same elements of the same memory, were they loaded."""
    if isinstance(tensor, Symbolic):
        shadow = tensor.shadow
        return "symbolic", _storage(shadow), shadow.storage_offset(), shadow.dtype, shadow.shape, shadow.stride()
    return "real", tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _shadow(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.shadow if isinstance(tensor, Symbolic) else tensor.to("meta")


def _storage(shadow: torch.Tensor) -> int:
    """Names the memory; it is never reused, for the tracer holds on to it."""
    key: int = shadow.untyped_storage()._cdata
    return key


def _changed_by(operator: Any, target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    changed = target.clone()
    operator(changed, *args, **kwargs)
    return changed


def _refused(operator: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"transformers' loader applies {operator} to the weights, which an import cannot do as it streams; "
        "save the model again with save_pretrained of this version"
    )


def _blank(tensor: "Symbolic") -> torch.Tensor:
    """A real tensor of that kind; its pages are never touched, so it costs nothing."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _generic(
    operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int | None, made: torch.Tensor
) -> Expression:
    bare, settings = pytree.tree_map_only(torch.Tensor, expression_of, (args, dict(kwargs)))
    return Apply(made.dtype, tuple(made.shape), operator, bare, settings, index)


def _same(_made: torch.Tensor, of: torch.Tensor, *_args: object, **_kwargs: object) -> Expression:
    return expression_of(of)


def _cast(made: torch.Tensor, of: torch.Tensor, **_kwargs: object) -> Expression:
    return cast(expression_of(of), made.dtype)


def _reshape(made: torch.Tensor, of: torch.Tensor, *_args: object, **_kwargs: object) -> Expression:
    return expression_of(of).reshape(tuple(made.shape))


def _transpose(_made: torch.Tensor, of: torch.Tensor, first: int, second: int) -> Expression:
    dims = list(range(of.dim()))
    dims[first], dims[second] = dims[second], dims[first]
    return permute(expression_of(of), dims)


def _turn(_made: torch.Tensor, of: torch.Tensor) -> Expression:
    return permute(expression_of(of), range(of.dim())[::-1])


def _permute(_made: torch.Tensor, of: torch.Tensor, dims: Sequence[int]) -> Expression:
    return permute(expression_of(of), [dim % of.dim() for dim in dims])


def _slice(
    made: torch.Tensor,
    of: torch.Tensor,
    dim: int = 0,
    start: int | None = None,
    _stop: int | None = None,
    step: int = 1,
) -> Expression:
    dim %= of.dim()
    first, _, _ = slice(start, None).indices(of.shape[dim])
    count = made.shape[dim]
    return cut(expression_of(of), dim, slice(first, min(first + count * step, of.shape[dim]), step))


def _select(made: torch.Tensor, of: torch.Tensor, dim: int, index: int) -> Expression:
    dim, index = dim % of.dim(), index % of.shape[dim]
    return cut(expression_of(of), dim, slice(index, index + 1, 1)).reshape(tuple(made.shape))


def _split(made: Sequence[torch.Tensor], of: torch.Tensor, _sizes: object, dim: int = 0) -> list[Expression]:
    dim %= of.dim()
    found, start = [], 0
    for each in made:
        found.append(cut(expression_of(of), dim, slice(start, start + each.shape[dim], 1)))
        start += each.shape[dim]
    return found


def _unbind(made: Sequence[torch.Tensor], of: torch.Tensor, dim: int = 0) -> list[Expression]:
    return [_select(each, of, dim, index) for index, each in enumerate(made)]


def _cat(made: torch.Tensor, parts: Sequence[torch.Tensor], dim: int = 0) -> Expression:
    """An old rule lets a tensor of shape [0] be in any company; dtypes are brought to one."""
    held = [expression_of(part) for part in parts if part.dim() == made.dim()]
    return cat([cast(part, made.dtype) for part in held], dim % made.dim())


def _stack(made: torch.Tensor, parts: Sequence[torch.Tensor], dim: int = 0) -> Expression:
    dim %= made.dim()
    shape = (*made.shape[:dim], 1, *made.shape[dim + 1 :])
    assert prod(shape) * len(parts) == made.numel()
    return cat([cast(expression_of(part).reshape(shape), made.dtype) for part in parts], dim)


RULES: Mapping[Any, Rule] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _same,
    aten.lift_fresh.default: _same,
    aten._to_copy.default: _cast,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten._reshape_alias.default: _reshape,
    aten.squeeze.default: _reshape,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.unsqueeze.default: _reshape,
    aten.transpose.int: _transpose,
    aten.t.default: _turn,
    aten.permute.default: _permute,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.unbind.int: _unbind,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
}
"""What operators mean for expressions. Each is given what the operator made of the shadows, then its arguments."""
