"""Rotary positions (Su et al. 2021) put on queries and keys by one Triton kernel, where torch launches some ten.
Imported only where it runs."""

import triton
import triton.language as tl
from torch import Tensor


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """query and key [1, heads, T, dim], each with its own heads; cos and sin [1, T, dim], of halves that turn against
    each other. Computed in float32."""
    (_, heads, count, dim), key_heads = query.shape, key.shape[1]
    outs = [query.new_empty(1, count, one.shape[1], dim).transpose(1, 2) for one in (query, key)]
    _rotate[(count, heads + key_heads)](
        query, key, cos.contiguous(), sin.contiguous(), *outs, heads,
        query.stride(2), query.stride(1), key.stride(2), key.stride(1),
        outs[0].stride(2), outs[0].stride(1), outs[1].stride(2), outs[1].stride(1),
        HALF=dim // 2,
        WIDE=triton.next_power_of_2(dim // 2),
        num_warps=1,
    )  # fmt: skip
    return outs[0], outs[1]


@triton.jit
def _rotate(
    query, key, cos, sin, query_out, key_out, heads,
    query_row, query_head, key_row, key_head, query_out_row, query_out_head, key_out_row, key_out_head,
    HALF: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One token's one head, of the queries' or of the keys'."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if head < heads:
        source = query + row * query_row + head * query_head
        target = query_out + row * query_out_row + head * query_out_head
    else:
        source = key + row * key_row + (head - heads) * key_head
        target = key_out + row * key_out_row + (head - heads) * key_out_head
    place = tl.arange(0, WIDE)
    inside = place < HALF
    left = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(source + HALF + place, mask=inside, other=0.0).to(tl.float32)
    turn = row * 2 * HALF + place
    cos_left = tl.load(cos + turn, mask=inside, other=0.0).to(tl.float32)
    cos_right = tl.load(cos + turn + HALF, mask=inside, other=0.0).to(tl.float32)
    sin_left = tl.load(sin + turn, mask=inside, other=0.0).to(tl.float32)
    sin_right = tl.load(sin + turn + HALF, mask=inside, other=0.0).to(tl.float32)
    kind = query_out.dtype.element_ty
    tl.store(target + place, (left * cos_left - right * sin_left).to(kind), mask=inside)
    tl.store(target + HALF + place, (right * cos_right + left * sin_right).to(kind), mask=inside)
