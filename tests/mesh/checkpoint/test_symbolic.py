"""What is done to a symbolic tensor is what torch does to a real one, to the bit; and no more is read than it takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

import pytest
import torch

from mesh.checkpoint.errors import UnsupportedModel
from mesh.checkpoint.expression import Expression, Leaf
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.pieces import pieces
from mesh.checkpoint.stream import Reader
from mesh.checkpoint.symbolic import Symbolic, Tracer, expression_of, memory_of

from .memory_origin import MemoryOrigin

CHUNK = 64  # bytes
Operation = Callable[..., torch.Tensor]


class Bench:
    """Real tensors, and symbols of the same in a file."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        raw = [tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]
        starts = [0, *accumulate(map(len, raw))]
        self.real = tensors
        self.origin = MemoryOrigin({"file": b"".join(raw)})
        self.reader = Reader(self.origin, Pace(ring_bytes=4 * CHUNK, chunk_bytes=CHUNK, readers=2))
        self.tracer = Tracer(self.reader)
        self.symbols = [
            self.tracer.tensor(Leaf(tensor.dtype, tuple(tensor.shape), "file", start))
            for tensor, start in zip(tensors, starts, strict=False)
        ]

    def whole(self, *expressions: Expression) -> torch.Tensor:
        """The elements of expressions of one group, one after another."""
        return torch.cat([tensor.reshape(-1) for tensor in self.reader.tensors([expressions])])


@contextmanager
def bench(*tensors: torch.Tensor) -> Iterator[Bench]:
    made = Bench(*tensors)
    with made.reader:
        yield made


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Different from one another."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) + 0.5


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8)
    )


OPERATIONS: dict[str, Operation] = {
    "as it is": lambda a, b: a,
    "alias": lambda a, b: a[...],
    "cast": lambda a, b: a.to(torch.bfloat16),
    "contiguous": lambda a, b: a.contiguous(),
    "clone of a transpose": lambda a, b: a.transpose(1, 2).clone(),
    "rows": lambda a, b: a[2:5],
    "every other row": lambda a, b: a[1:6:2],
    "from the end": lambda a, b: a[-3:],
    "columns": lambda a, b: a[:, 1:3],
    "every other column": lambda a, b: a[:, :, ::2],
    "row": lambda a, b: a[3],
    "column": lambda a, b: a[:, -1],
    "number": lambda a, b: a[1, 2, 0],
    "nothing": lambda a, b: a[4:4],
    "stack": lambda a, b: torch.stack([a, b]),
    "stack inside": lambda a, b: torch.stack([a, b], dim=2),
    "stack at the end": lambda a, b: torch.stack([a, b], dim=-1),
    "cat": lambda a, b: torch.cat([a, b, a]),
    "cat inside": lambda a, b: torch.cat([a, b], dim=1),
    "cat of two dtypes": lambda a, b: torch.cat([a, b.to(torch.float64)], dim=1),
    "cat with an empty one": lambda a, b: torch.cat([a, b.reshape(-1)[:0], b]),
    "fused experts": lambda a, b: torch.cat([torch.stack(list(a)), torch.stack(list(b))], dim=1),
    "fused experts, turned": lambda a, b: torch.stack(list(a)).transpose(1, 2).contiguous(),
    "first two dimensions turned": lambda a, b: a.transpose(0, 1).contiguous(),
    "all dimensions turned": lambda a, b: a.permute(2, 0, 1),
    "matrix turned": lambda a, b: a[0].t(),
    "chunk": lambda a, b: torch.chunk(a, 2, dim=0)[1].contiguous(),
    "chunk inside": lambda a, b: torch.chunk(a, 2, dim=1)[1],
    "split": lambda a, b: torch.split(a, [1, 2, 3], dim=0)[2],
    "unbind": lambda a, b: torch.unbind(a, dim=1)[1],
    "view": lambda a, b: a.view(3, 2, -1),
    "flat": lambda a, b: a.transpose(0, 2).reshape(-1),
    "squeeze": lambda a, b: a[:, :1].squeeze(1),
    "unsqueeze": lambda a, b: a.unsqueeze(0)[:, 2:4],
    "rows of a reshape": lambda a, b: a.transpose(1, 2).reshape(6, 12)[1:4],
    "interleaved": lambda a, b: a.reshape(6, 2, 2, 3).transpose(1, 2).reshape(6, 4, 3).contiguous(),
    "rotary halves": lambda a, b: a.view(2, 3, 4, 3).transpose(1, 2).reshape(6, 4, 3),
    "bits as another dtype": lambda a, b: a.view(torch.int32),
    "turned bits as another dtype": lambda a, b: a.transpose(0, 1).contiguous().view(torch.int32),
    "arithmetic": lambda a, b: a * 2 - b,
    "function": lambda a, b: -torch.exp(a),
    "rows of a function": lambda a, b: torch.exp(a)[2:4],
    "function of rows": lambda a, b: torch.flip(a[2:5], [0]),
    "two outputs": lambda a, b: torch.aminmax(a, dim=0)[1],
    "sum": lambda a, b: a.sum(),
    "into a constant": lambda a, b: torch.cat([a, torch.ones(1, 4, 3)]),
    "cat of a cat of rows": lambda a, b: torch.cat([torch.cat([a, b])[4:8], b[:1]]),
    "changed in place": lambda a, b: a.mul_(2),
    "changed through a view": lambda a, b: (a[2].zero_(), a)[1],
    "changed, seen through an earlier view": lambda a, b: (v := a.transpose(0, 1), a[:, 1].fill_(7), v)[2],
    "changed by another, twice": lambda a, b: (a[1:3].copy_(b[2:4]), a.view(-1)[5:9].add_(1), a)[2],
    "a clone changed": lambda a, b: torch.cat([a.clone().neg_(), a]),
    "slice of a slice of a transpose": lambda a, b: a.transpose(0, 1)[1:3][:, 2:5][1:],
}  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.filterwarnings("ignore:.*different dtype")
def test_an_operation_is_what_torch_makes_of_it(operation: Operation) -> None:
    with bench(numbers(6, 4, 3), -numbers(6, 4, 3)) as at:
        expected, symbol = operation(*at.real), operation(*at.symbols)
        assert isinstance(symbol, Symbolic)
        assert (symbol.dtype, symbol.shape, symbol.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert at.origin.reads == []
        expression = expression_of(symbol)
        assert same(at.reader.compute(expression), expected)
        assert (expression.dtype, expression.shape) == (expected.dtype, tuple(expected.shape))
        if expected.numel():
            assert same(at.whole(*pieces(expression, CHUNK)), expected.reshape(-1))
        if expected.dim() and expected.numel():
            cut = [expression.row(index) for index in range(expected.shape[0])]
            assert same(at.whole(*cut), expected.reshape(-1))
            small = [piece for row in cut for piece in pieces(row, CHUNK)]
            assert same(at.whole(*small), expected.reshape(-1))


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.float8_e4m3fn, torch.float16, torch.complex64, torch.float64],
    ids=str,
)
def test_any_dtype_comes_through(dtype: torch.dtype) -> None:
    tensor = torch.arange(60).view(3, 20).to(torch.uint8).view(torch.bool if dtype is torch.bool else torch.uint8)
    tensor = tensor if dtype is torch.bool else numbers(3, 20).to(dtype)
    with bench(tensor, tensor) as at:
        fused = expression_of(torch.stack([*at.symbols]))
        assert same(at.reader.compute(fused), torch.stack([*at.real]))
        assert same(at.whole(*pieces(fused.row(1), CHUNK)), tensor.reshape(-1))


def test_an_expert_is_read_and_nothing_else() -> None:
    gates, ups = [numbers(8, 16) + index for index in range(5)], [numbers(8, 16) - index for index in range(5)]
    with bench(*gates, *ups) as at:
        symbols = at.symbols
        fused = torch.cat([torch.stack(symbols[:5]), torch.stack(symbols[5:])], dim=1).to(torch.bfloat16)
        expert = list(pieces(expression_of(fused).row(3), CHUNK))
        found = at.whole(*expert)
        assert same(found, torch.cat([gates[3], ups[3]]).to(torch.bfloat16).reshape(-1))
        assert at.origin.bytes_read == 2 * 8 * 16 * 4
        assert max(piece.bytes for piece in expert) <= CHUNK


def test_where_rows_are_mixed_all_is_read_once_for_the_group() -> None:
    with bench(numbers(8, 6, 5)) as at:
        turned = expression_of(at.symbols[0].transpose(0, 1).contiguous())
        rows = [turned.row(index) for index in range(6)]
        assert same(at.whole(*rows), at.real[0].transpose(0, 1).reshape(-1))
        assert at.origin.bytes_read == turned.bytes


def test_a_large_cast_is_made_in_small_pieces() -> None:
    with bench(numbers(50, 64)) as at:
        parts = list(pieces(expression_of(at.symbols[0].to(torch.bfloat16)), CHUNK))
        assert max(part.bytes for part in parts) <= CHUNK
        assert same(at.whole(*parts), at.real[0].to(torch.bfloat16).reshape(-1))
        assert at.origin.bytes_read == 50 * 64 * 4


def test_values_are_read_where_the_loader_asks_for_them() -> None:
    with bench(numbers(40), numbers(40), -numbers(40)) as at:
        one, two, three = at.symbols
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
        assert torch.equal(one.view(4, 10).t(), two.view(4, 10).t())
        assert not torch.equal(one, one[:20])
        assert one[1].item() == 1.5
        assert bool((one[2] > 2).item())


def test_comparing_stops_where_a_difference_is_found() -> None:
    with bench(numbers(4000), numbers(4000) + 1) as at:
        assert not torch.equal(*at.symbols)
        assert at.origin.bytes_read <= at.reader.pace.ring_bytes + CHUNK


def test_a_view_is_the_same_memory_and_a_copy_is_not() -> None:
    with bench(numbers(6, 4), numbers(6, 4)) as at:
        one, other = at.symbols
        parameter = torch.nn.Parameter(one)
        assert isinstance(parameter, torch.nn.Parameter)
        assert memory_of(parameter.detach()) == memory_of(one)
        assert memory_of(one[2:4].contiguous()) == memory_of(one[2:4])
        assert memory_of(one[2:4]) != memory_of(one[1:3])
        assert memory_of(one.clone()) != memory_of(one)
        assert memory_of(one) != memory_of(other)


@pytest.mark.parametrize(
    "make",
    [torch.zeros_like, torch.ones_like, lambda a: a.new_full((2, 3), 7.0), lambda a: torch.empty_like(a).fill_(2)],
    ids=["zeros", "ones", "new", "empty, filled"],
)
def test_what_is_made_in_a_tensors_likeness_is_real(make: Operation) -> None:
    with bench(numbers(6, 4)) as at:
        made = make(at.symbols[0])
        assert type(made) is torch.Tensor
        assert same(made, make(at.real[0]))
        assert at.origin.reads == []


def test_numbers_are_read_where_they_go_into_a_real_tensor() -> None:
    with bench(numbers(6, 4)) as at:
        real = torch.zeros(6, 4)
        real[2:] = at.symbols[0][2:]
        assert same(real[2:], at.real[0][2:])


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: a.as_strided((2, 2), (1, 1)),
        lambda a: a.resize_(2, 2),
        lambda a: a.t().clone().mul_(2),
    ],
    ids=["by strides", "in another size", "written to and turned"],
)
def test_what_depends_on_strides_is_refused_by_name(operation: Operation) -> None:
    with bench(numbers(6, 4)) as at:
        with pytest.raises(UnsupportedModel, match="aten"):
            operation(at.symbols[0])
        assert isinstance(at.tracer.failure, UnsupportedModel)
