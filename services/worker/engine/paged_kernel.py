"""Decode attention over the paged pool in Triton: each row's context is cut into pieces that are attended to side by
side, then joined (Dao et al. 2023, Flash-Decoding). Imported only where it runs: Triton comes with torch for CUDA."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.worker.engine.attention import Score
from services.worker.engine.paged import PageTable
from services.worker.engine.pool import LayerPool

LEAST_DIM = 16  # of an operand of Triton's dot
TILE_BYTES = 16 << 10  # of keys that one step of the loop reads: 64 tokens of 128 bf16 numbers


def attend(query: Tensor, pool: LayerPool, score: Score, table: PageTable, pieces: int) -> Tensor:
    """query [rows, heads, k_dim] -> [rows, heads, v_dim]. Contexts are cut into `pieces`, a power of two."""
    rows, heads, k_dim = query.shape
    v_dim, group = pool.v.shape[2], heads // pool.heads
    sums = query.new_empty(rows, heads, pieces, v_dim, dtype=torch.float32)
    peaks = query.new_empty(2, rows, heads, pieces, dtype=torch.float32)
    wide_k = max(LEAST_DIM, triton.next_power_of_2(k_dim))
    _piece[(rows, pool.heads, pieces)](
        query, pool.k, pool.v, table.lengths, table.starts, table.blocks, sums, peaks[0], peaks[1],
        score.scale, score.softcap or 0.0, pieces,
        query.stride(0), query.stride(1), pool.k.stride(0), pool.k.stride(1), pool.v.stride(0), pool.v.stride(1),
        WINDOW=score.window or 0,
        CAPPED=score.softcap is not None,
        GROUP=group,
        WIDE_GROUP=max(LEAST_DIM, triton.next_power_of_2(group)),
        K_DIM=k_dim,
        WIDE_K=wide_k,
        V_DIM=v_dim,
        WIDE_V=max(LEAST_DIM, triton.next_power_of_2(v_dim)),
        SIZE=table.block_tokens,
        TILE=min(64, max(LEAST_DIM, TILE_BYTES // (wide_k * query.element_size()))),
        num_warps=4,
        num_stages=3,
    )  # fmt: skip
    out = query.new_empty(rows, heads, v_dim)
    sinks = score.sinks
    _join[(rows, heads)](
        sums, peaks[0], peaks[1], sums if sinks is None else sinks, out,
        SUNK=sinks is not None,
        PIECES=pieces,
        V_DIM=v_dim,
        WIDE_V=triton.next_power_of_2(v_dim),
        num_warps=4,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["pieces"])
def _piece(
    query, keys, values, lengths, starts, blocks, sums, peaks, totals, scale, cap, pieces,
    query_row, query_head, key_slot, key_head, value_slot, value_head,
    WINDOW: tl.constexpr, CAPPED: tl.constexpr, GROUP: tl.constexpr, WIDE_GROUP: tl.constexpr, K_DIM: tl.constexpr,
    WIDE_K: tl.constexpr, V_DIM: tl.constexpr, WIDE_V: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One piece of one row's context, for the query heads of one kv head. A piece is a run of tiles, as many as the
    row's own length says: nothing depends on other rows."""
    row, head, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row).to(tl.int32)
    table = blocks + tl.load(starts + row)
    seen_from = tl.maximum(length - WINDOW, 0) if WINDOW else 0
    first, last = seen_from // TILE, tl.cdiv(length, TILE)
    each = tl.cdiv(last - first, pieces)
    begin = first + piece * each
    end = tl.minimum(begin + each, last)

    member, k_place, v_place = tl.arange(0, WIDE_GROUP), tl.arange(0, WIDE_K), tl.arange(0, WIDE_V)
    own = head * GROUP + member
    asked = tl.load(
        query + row * query_row + own[:, None] * query_head + k_place[None, :],
        mask=(member < GROUP)[:, None] & (k_place < K_DIM)[None, :],
        other=0.0,
    )
    peak = tl.full([WIDE_GROUP], float("-inf"), tl.float32)
    total = tl.zeros([WIDE_GROUP], tl.float32)
    mixed = tl.zeros([WIDE_GROUP, WIDE_V], tl.float32)
    for tile in range(begin, end):
        place = tile * TILE + tl.arange(0, TILE)
        seen = (place >= seen_from) & (place < length)
        slot = tl.load(table + place // SIZE, mask=place < length, other=0) * SIZE + place % SIZE
        key = tl.load(
            keys + slot[None, :] * key_slot + head * key_head + k_place[:, None],
            mask=seen[None, :] & (k_place < K_DIM)[:, None],
            other=0.0,
        )
        weight = tl.dot(asked, key, input_precision="ieee") * scale
        if CAPPED:
            weight = cap * (2 * tl.sigmoid(2 * weight / cap) - 1)  # tanh
        weight = tl.where(seen[None, :], weight, float("-inf"))
        higher = tl.maximum(peak, tl.max(weight, 1))  # finite: each tile has a token that is seen
        shrink = tl.exp(peak - higher)
        weight = tl.exp(weight - higher[:, None])
        value = tl.load(
            values + slot[:, None] * value_slot + head * value_head + v_place[None, :],
            mask=seen[:, None] & (v_place < V_DIM)[None, :],
            other=0.0,
        )
        mixed = mixed * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(weight, 1)
        peak = higher

    at = (row * tl.num_programs(1) * GROUP + own) * pieces + piece
    tl.store(peaks + at, peak, mask=member < GROUP)
    tl.store(totals + at, total, mask=member < GROUP)
    kept = (member < GROUP)[:, None] & (v_place < V_DIM)[None, :]
    tl.store(sums + at[:, None] * V_DIM + v_place[None, :], mixed, mask=kept)


@triton.jit
def _join(
    sums, peaks, totals, sinks, out,
    SUNK: tl.constexpr, PIECES: tl.constexpr, V_DIM: tl.constexpr, WIDE_V: tl.constexpr,
):  # fmt: skip
    """One row's query head from its pieces. An empty one has -inf for its peak, and weighs nothing."""
    head = tl.program_id(1)
    at = (tl.program_id(0) * tl.num_programs(1) + head) * PIECES + tl.arange(0, PIECES)
    place = tl.arange(0, WIDE_V)
    peak = tl.load(peaks + at)
    highest = tl.max(peak, 0)
    if SUNK:
        sink = tl.load(sinks + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    weight = tl.exp(peak - highest)
    total = tl.sum(tl.load(totals + at) * weight, 0)
    if SUNK:
        total += tl.exp(sink - highest)
    part = tl.load(sums + at[:, None] * V_DIM + place[None, :], mask=(place < V_DIM)[None, :], other=0.0)
    mixed = tl.sum(part * weight[:, None], 0) / total
    row = (tl.program_id(0) * tl.num_programs(1) + head) * V_DIM
    tl.store(out + row + place, mixed.to(out.dtype.element_ty), mask=place < V_DIM)
