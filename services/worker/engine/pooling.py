"""From the vectors of a text's tokens to one."""

import torch
from torch import Tensor

from mesh.requests import Pooling


def pooled(hidden: Tensor, lengths: list[int], pooling: Pooling) -> Tensor:
    """One vector a sequence, [sequences, width] float32 on the CPU; `hidden` has them end to end."""
    each = torch.split(hidden.float(), lengths)
    match pooling:
        case Pooling.MEAN:
            rows = [one.mean(0) for one in each]
        case Pooling.LAST:
            rows = [one[-1] for one in each]
        case Pooling.CLS:
            rows = [one[0] for one in each]
    return torch.stack(rows).cpu()
