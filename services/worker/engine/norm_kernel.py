"""A root mean square norm (Zhang and Sennrich 2019) as one Triton kernel, where torch launches some eight. Imported
only where it runs."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def norm(rows: Tensor, weight: Tensor, eps: float, shift: float) -> Tensor:
    """rows [..., width], weight [width], both of one dtype: normed and rounded, times weight; with a shift, times
    weight + shift before it is rounded. Computed in float32."""
    rows = rows.contiguous()
    out, width = torch.empty_like(rows), rows.shape[-1]
    _norm[(rows.numel() // width,)](
        rows, weight, out, eps, shift,
        WIDTH=width,
        WIDE=triton.next_power_of_2(width),
        SHIFTED=bool(shift),
        num_warps=8 if width > 2048 else 4,
    )  # fmt: skip
    return out


@triton.jit
def _norm(rows, weight, out, eps, shift, WIDTH: tl.constexpr, WIDE: tl.constexpr, SHIFTED: tl.constexpr):
    """One row."""
    start = tl.program_id(0).to(tl.int64) * WIDTH
    place = tl.arange(0, WIDE)
    inside = place < WIDTH
    value = tl.load(rows + start + place, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) / WIDTH + eps)
    if SHIFTED:
        value *= gain + shift
    else:
        value = value.to(out.dtype.element_ty).to(tl.float32) * gain
    tl.store(out + start + place, value.to(out.dtype.element_ty), mask=inside)
