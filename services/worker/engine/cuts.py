"""What top_k, top_p and min_p leave out of many rows at once: for small vocabularies, and for devices where a row is
as dear as all."""

import math
from collections.abc import Sequence

from torch import Tensor

from services.worker.engine.params import SamplingParams

NUCLEUS_WIDTH = 1024  # top_p first looks among this many best tokens; a flatter row is sorted whole


def truncate(scores: Tensor, params: Sequence[SamplingParams]) -> None:
    """Set what top_k, then top_p, then min_p leave out to -inf. Tokens tied with the last one kept are kept."""
    groups: dict[tuple[int, float], list[int]] = {}
    for i, p in enumerate(params):
        if p.top_k or p.top_p < 1.0:
            groups.setdefault((p.top_k, p.top_p), []).append(i)
    for (top_k, top_p), rows in groups.items():
        part = scores[rows]
        scores[rows] = part.masked_fill_(part < _floor(part, top_k, top_p), -math.inf)
    if any(p.min_p for p in params):
        shift = scores.new_tensor([math.log(p.min_p) if p.min_p else -math.inf for p in params])
        scores.masked_fill_(scores < (scores.amax(-1) + shift)[:, None], -math.inf)


def _floor(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """[rows, 1]: the least score that top_k, and then top_p of what it left, keep."""
    vocabulary = scores.shape[-1]
    top_k = min(top_k or vocabulary, vocabulary)
    width = min(top_k, NUCLEUS_WIDTH)
    if top_p >= 1.0 or width == top_k:
        best = scores.topk(top_k).values
        return best[:, -1:] if top_p >= 1.0 else _nucleus(best, best.logsumexp(-1, keepdim=True), top_p)[0]
    kept = scores if top_k == vocabulary else scores.topk(top_k).values
    mass = kept.logsumexp(-1, keepdim=True)
    floor, open_ended = _nucleus(scores.topk(width).values, mass, top_p)
    if bool(open_ended.any()):
        floor[open_ended] = _nucleus(scores[open_ended].topk(top_k).values, mass[open_ended], top_p)[0]
    return floor


def _nucleus(best: Tensor, mass: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Floor [rows, 1] of top_p among the `best` [rows, n], sorted; and which rows' nuclei reach past them."""
    probabilities = (best - mass).exp_()
    inside = probabilities.cumsum(-1) - probabilities < top_p
    return best.gather(-1, inside.sum(-1, keepdim=True) - 1), inside[:, -1]
