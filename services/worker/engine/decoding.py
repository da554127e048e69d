"""How a device computes decoding rows: what stands in there for the host's attention calls and for the launching of
kernels one by one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from services.worker.engine.paged import PagedKernel
from services.worker.engine.recorded import Record, on_cuda

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decoding:
    """`kernel` serves decoding rows at all levels, None leaves them to torch; `recorder` is asked once a replica, and
    used at level fast with a kernel only."""

    kernel: PagedKernel | None = None
    recorder: Callable[[], Record] | None = None


BY_TORCH = Decoding()


def decoding_on(device: torch.device, *, recorded: bool = True) -> Decoding:
    """The best that this device and what is installed allow. Imports Triton where it pays: call from any thread but
    the event loop's."""
    if device.type != "cuda":
        return BY_TORCH
    try:
        from services.worker.engine.paged_kernel import attend  # noqa: PLC0415  # a second, and only on a GPU
    except ImportError as error:
        log.warning("decoding without a paged kernel: pip install triton", extra={"why": str(error)})
        return BY_TORCH
    return Decoding(attend, on_cuda if recorded else None)
