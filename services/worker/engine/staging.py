"""A step's numbers on their way to the device, always to the same place there: one copy, from page-locked memory."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Staging:
    """`tensor` is int64 [capacity] on `device`."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self.capacity = capacity
        self.tensor = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._host: Tensor = torch.zeros(capacity, dtype=torch.int64, pin_memory=on_cuda)
        self._left: Any = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]  # when what lay in host memory has been read

    def put(self, numbers: NDArray[np.int64]) -> None:
        """Have `tensor` begin with these, for what is launched from now on."""
        if self._left is not None:
            self._left.synchronize()
        count = len(numbers)
        self._host[:count].numpy()[:] = numbers
        self.tensor[:count].copy_(self._host[:count], non_blocking=True)
        if self._left is not None:
            self._left.record()
