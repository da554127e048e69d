"""The Triton kernels: on a card if there is one, else in Triton's interpreter, where both are installed for it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

ON_CARD = torch.cuda.is_available()
if not ON_CARD:
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton's interpreter wants numpy < 2.4", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton")

from services.worker.engine.attention import Score
from services.worker.engine.norm_kernel import norm
from services.worker.engine.paged import PageTable
from services.worker.engine.paged_kernel import attend
from services.worker.engine.pool import KVPool, KVSpec, LayerKV, LayerPool
from services.worker.engine.rotary_kernel import rotate

pytestmark = [pytest.mark.gpu] if ON_CARD else [pytest.mark.filterwarnings("ignore:Conversion of an array")]
DEVICE = "cuda" if ON_CARD else "cpu"
DTYPES = [torch.float32, torch.bfloat16 if ON_CARD else torch.float16]  # the interpreter multiplies no bfloat16
SIZE, BLOCKS = 8, 64
LENGTHS = (1, 100, 64)


@dataclass
class Filled:
    """A pool in which some sequences lie scattered; the rest is not a number."""

    layer: LayerPool
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    table: PageTable

    @classmethod
    def of(cls, kv: LayerKV, dtype: torch.dtype) -> "Filled":
        layer = KVPool(KVSpec((kv,), dtype, SIZE), BLOCKS, DEVICE).layers[0]
        layer.k.fill_(torch.nan)
        layer.v.fill_(torch.nan)
        free = torch.randperm(BLOCKS, generator=torch.Generator().manual_seed(5)).tolist()
        keys, values, starts, blocks = list[Tensor](), list[Tensor](), list[int](), list[int]()
        for length in LENGTHS:
            own = [free.pop() for _ in range(-(-length // SIZE))]
            slots = torch.tensor([own[t // SIZE] * SIZE + t % SIZE for t in range(length)], device=DEVICE)
            starts.append(len(blocks))
            blocks += own
            keys.append(_random(length, kv.heads, kv.k_dim, dtype))
            values.append(_random(length, kv.heads, kv.v_dim, dtype))
            layer.k[slots], layer.v[slots] = keys[-1], values[-1]
        lengths, firsts, all_blocks = (torch.tensor(column, device=DEVICE) for column in (LENGTHS, starts, blocks))
        return cls(layer, keys, values, PageTable(lengths, firsts, all_blocks, SIZE))

    def by_the_book(self, query: Tensor, score: Score) -> Tensor:
        return torch.stack([_attention(q, k, v, score) for q, k, v in zip(query, self.keys, self.values, strict=True)])


def _random(count: int, heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, heads, dim).to(DEVICE, dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, score: Score) -> Tensor:
    """In float64: q [heads, k_dim] at the end of k and v [length, kv heads, dim]."""
    repeat = q.shape[0] // k.shape[1]
    weights = torch.einsum("hd,lhd->hl", q.double(), k.repeat_interleave(repeat, 1).double()) * score.scale
    if score.softcap is not None:
        weights = score.softcap * torch.tanh(weights / score.softcap)
    if score.window is not None:
        weights[:, : max(0, len(k) - score.window)] = -torch.inf
    if score.sinks is not None:
        weights = torch.cat([weights, score.sinks.double()[:, None]], 1)
    shares = weights.softmax(-1)[:, : len(k)]
    return torch.einsum("hl,lhd->hd", shares, v.repeat_interleave(repeat, 1).double())


@pytest.mark.parametrize(
    ("kv", "group"),
    [
        (LayerKV(2, 16, 8), 3),
        (LayerKV(2, 64, 64), 1),
        (LayerKV(1, 80, 80), 4),
        (LayerKV(1, 96, 96), 2),
        (LayerKV(2, 192, 128), 1),
        (LayerKV(1, 128, 128), 5),
        (LayerKV(1, 256, 256), 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_attention_by_the_book(kv: LayerKV, group: int, dtype: torch.dtype) -> None:
    filled, heads = Filled.of(kv, dtype), kv.heads * group
    query = torch.randn(heads, len(LENGTHS), kv.k_dim).to(DEVICE, dtype).transpose(0, 1)  # as models hand it over
    plain = Score(kv.k_dim**-0.5)
    sinks = torch.linspace(-1, 1, heads, device=DEVICE)
    scores = [plain, replace(plain, window=5), replace(plain, softcap=3.0), replace(plain, sinks=sinks, window=70)]
    for score, pieces in zip(scores, (1, 4, 2, 4), strict=True):
        out, wanted = attend(query, filled.layer, score, filled.table, pieces), filled.by_the_book(query, score)
        error = float((out.double() - wanted).norm() / wanted.norm())
        assert error < (1e-5 if dtype is torch.float32 else 1e-2), (score, pieces)


def test_a_rows_bits_do_not_tell_which_other_rows_there_are() -> None:
    filled = Filled.of(LayerKV(2, 16, 16), torch.float32)
    query, table = _random(len(LENGTHS), 4, 16, torch.float32), filled.table
    together = attend(query, filled.layer, Score(0.25), filled.table, 4)
    for row in range(len(LENGTHS)):
        own = slice(row, row + 1)
        alone = attend(
            query[own],
            filled.layer,
            Score(0.25),
            replace(table, lengths=table.lengths[own], starts=table.starts[own]),
            4,
        )
        assert torch.equal(alone, together[own])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_rows_are_normed_by_the_book(dtype: torch.dtype, shift: float) -> None:
    rows, weight = _random(3, 5, 80, dtype), _random(1, 1, 80, dtype).flatten()
    wide = rows.double()
    wanted = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5) * (weight.double() + shift)
    out = norm(rows, weight, 1e-5, shift)
    assert out.dtype is dtype
    assert float((out.double() - wanted).norm() / wanted.norm()) < (1e-6 if dtype is torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 80])
def test_heads_are_turned_by_the_book(dtype: torch.dtype, dim: int) -> None:
    query, key = (_random(3, heads, dim, dtype).transpose(0, 1)[None] for heads in (4, 2))  # as models hand it over
    cos, sin = (_random(1, 3, dim, dtype) for _ in range(2))
    for one, out in zip((query, key), rotate(query, key, cos, sin), strict=True):
        left, right = one.double().chunk(2, -1)
        wanted = one.double() * cos.double()[:, None] + torch.cat([-right, left], -1) * sin.double()[:, None]
        assert out.shape == one.shape
        assert float((out.double() - wanted).norm() / wanted.norm()) < (1e-6 if dtype is torch.float32 else 1e-2)
