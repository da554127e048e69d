import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from services.worker.engine.attention import Call, Chunk, Context, EachRow, PackedStep, PaddedRows, Score
from services.worker.engine.errors import PoolTooSmall
from services.worker.engine.pool import KVPool, KVSpec, LayerKV, blocks_in

HEADS, GROUP, K_DIM, V_DIM = 2, 3, 16, 8
SPEC = KVSpec((LayerKV(HEADS, K_DIM, V_DIM),), torch.float32, 4)
PLAIN = Score(K_DIM**-0.5)
SCORES = [
    PLAIN,
    replace(PLAIN, window=5),
    replace(PLAIN, softcap=3.0),
    replace(PLAIN, sinks=torch.linspace(-1, 1, HEADS * GROUP), window=7),
]
LENGTHS = (9, 1, 30)


def naive(query: Tensor, key: Tensor, value: Tensor, score: Score) -> Tensor:
    """By the book, in float64: query [T, heads, dim] at the end of key and value [L, kv heads, dim]."""
    count, length = len(query), len(key)
    key, value = key.repeat_interleave(GROUP, 1).double(), value.repeat_interleave(GROUP, 1).double()
    weights = torch.einsum("thd,lhd->htl", query.double(), key) * score.scale
    if score.softcap is not None:
        weights = score.softcap * torch.tanh(weights / score.softcap)
    for row, place in itertools.product(range(count), range(length)):
        own = length - count + row
        if place > own or (score.window is not None and place <= own - score.window):
            weights[:, row, place] = -torch.inf
    if score.sinks is not None:
        sinks = score.sinks.double()[:, None, None].expand(-1, count, 1)
        return torch.einsum("htl,lhd->thd", torch.cat([weights, sinks], -1).softmax(-1)[..., :-1], value).float()
    return torch.einsum("htl,lhd->thd", weights.softmax(-1), value).float()


class Layer(nn.Module):
    layer_idx = 0


class Filled:
    """A pool in which three sequences lie, each either in one run or scattered; the rest is not a number."""

    def __init__(self, scattered: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        self.pool = KVPool(SPEC, 32)
        self.layer = self.pool.layers[0]
        self.layer.k.fill_(torch.nan)
        self.layer.v.fill_(torch.nan)
        order = torch.randperm(128, generator=generator) if scattered else torch.arange(128)
        self.slots = torch.split(order, [40, 40, 48])
        self.keys = [torch.randn(n, HEADS, K_DIM, generator=generator) for n in LENGTHS]
        self.values = [torch.randn(n, HEADS, V_DIM, generator=generator) for n in LENGTHS]
        for slots, k, v in zip(self.slots, self.keys, self.values, strict=True):
            self.layer.k[slots[: len(k)]] = k
            self.layer.v[slots[: len(v)]] = v
        self.contexts = [
            Context(n, -1 if scattered else int(slots[0]), slots[:n] if scattered else None)
            for n, slots in zip(LENGTHS, self.slots, strict=True)
        ]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scattered", [False, True])
def test_decoding_rows_one_by_one_and_padded_are_attention_by_the_book(score: Score, scattered: bool) -> None:
    filled = Filled(scattered)
    query = torch.randn(3, HEADS * GROUP, K_DIM)
    expected = torch.cat(
        [naive(query[i : i + 1], filled.keys[i], filled.values[i], score) for i in range(len(LENGTHS))]
    )
    assert torch.allclose(EachRow(filled.contexts).attend(query, filled.layer, score), expected, atol=1e-5)
    lengths = torch.tensor(LENGTHS)[:, None]
    slots = torch.stack([s[:30] for s in filled.slots])
    slots = torch.where(torch.arange(30) < lengths, slots, slots[:, :1])
    padded = PaddedRows(slots.flatten(), lengths, 30)
    assert torch.allclose(padded.attend(query, filled.layer, score), expected, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("count", [2, 11, 30])
def test_a_chunk_is_attention_by_the_book(score: Score, scattered: bool, count: int) -> None:
    filled = Filled(scattered)
    query = torch.randn(count, HEADS * GROUP, K_DIM)
    expected = naive(query, filled.keys[2], filled.values[2], score)
    chunk = Chunk(count, filled.contexts[2])
    for _ in range(2):  # the second layer reuses the mask
        assert torch.allclose(chunk.attend(query, filled.layer, score), expected, atol=1e-5)


def test_a_step_writes_its_keys_and_values_where_the_slots_say() -> None:
    filled = Filled(scattered=False)
    layer = Layer()
    query, key = torch.randn(1, HEADS * GROUP, 2, K_DIM), torch.randn(1, HEADS, 2, K_DIM)
    value = torch.randn(1, HEADS, 2, V_DIM)
    step = PackedStep(filled.pool, torch.tensor([39, 38]), None, 0, [Chunk(2, Context(2, 38, None))])
    step.attend(Call(layer, query, key, value, PLAIN, {}))
    assert torch.equal(filled.layer.k[39], key[0, :, 0])
    assert torch.equal(filled.layer.v[38], value[0, :, 1])
    assert filled.layer.k[37].isnan().all()


def test_layers_of_different_shapes_share_one_buffer_without_overlap() -> None:
    pool = KVPool(KVSpec((LayerKV(2, 4, 4), LayerKV(1, 8, 2)), torch.bfloat16, 4), 3)
    views = [view for layer in pool.layers for view in (layer.k, layer.v)]
    for i, view in enumerate(views):
        view.fill_(i)
    assert all((view == i).all() for i, view in enumerate(views))
    assert sum(view.nbytes for view in views) == pool.buffer.nbytes == 3 * pool.spec.block_bytes


def test_a_budget_below_one_block_is_refused() -> None:
    assert blocks_in(SPEC.block_bytes * 3 - 1, SPEC) == 2
    with pytest.raises(PoolTooSmall, match=str(SPEC.block_bytes)):
        blocks_in(SPEC.block_bytes - 1, SPEC)


def test_one_run_of_slots_is_read_without_a_copy() -> None:
    filled = Filled(scattered=False)
    k, v = filled.contexts[1].read(filled.layer, 0)
    assert k.data_ptr() == filled.layer.k[40].data_ptr()
    assert v.data_ptr() == filled.layer.v[40].data_ptr()
