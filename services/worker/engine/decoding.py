"""How a device computes decoding rows: what stands in there for the host's attention calls and for the launching of
kernels one by one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from services.worker.engine.norms import NormKernel
from services.worker.engine.paged import PagedKernel
from services.worker.engine.recorded import Record, on_cuda
from services.worker.engine.rotations import RotaryKernel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decoding:
    """`kernel` serves decoding rows at all levels, None leaves them to torch. At level fast only: `norm` and `rotate`
    stand in for the model's own, and `recorder`, asked once a replica, records what `kernel` serves."""

    kernel: PagedKernel | None = None
    recorder: Callable[[], Record] | None = None
    norm: NormKernel | None = None
    rotate: RotaryKernel | None = None


BY_TORCH = Decoding()


def decoding_on(device: torch.device, *, recorded: bool = True) -> Decoding:
    """The best that this device and what is installed allow. Imports Triton where it pays: call from any thread but
    the event loop's."""
    if device.type != "cuda":
        return BY_TORCH
    try:
        from services.worker.engine.norm_kernel import norm  # noqa: PLC0415  # takes a second
        from services.worker.engine.paged_kernel import attend  # noqa: PLC0415
        from services.worker.engine.rotary_kernel import rotate  # noqa: PLC0415
    except ImportError as error:
        log.warning("decoding without kernels of our own: pip install triton", extra={"why": str(error)})
        return BY_TORCH
    return Decoding(attend, on_cuda if recorded else None, norm, rotate)
