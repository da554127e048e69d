"""What top_k, top_p and min_p leave of one long row, on a CPU: found among the best few hundred tokens where these
decide it, so that neither a sort nor noise goes over the whole vocabulary."""

import math

from torch import Tensor

from services.worker.engine.params import SamplingParams

DEPTHS = (3.0, 6.0, 12.0, math.inf)  # below the best score; each is looked through if the one before is not enough


def shortlisted(row: Tensor, params: SamplingParams) -> Tensor:
    """Token ids [n], ascending, of what the cuts leave of `row` [vocabulary], scores divided by the temperature.
    Tokens tied with the last one kept are kept."""
    best = row.max()
    mass = (row - best).exp_().sum() if params.top_p < 1.0 and not params.top_k else None
    for depth in DEPTHS:
        tokens = (row >= best - depth).nonzero().squeeze(-1)
        scores = row[tokens] - best
        if depth == math.inf or _decides(scores, params, mass, depth):
            break
    return tokens[scores >= _floor(scores, params, mass)]


def _decides(scores: Tensor, params: SamplingParams, mass: Tensor | None, depth: float) -> bool:
    """Whether the cuts fall among `scores`, which are all from 0 down to -depth."""
    if params.top_k and len(scores) >= params.top_k:
        return True
    if params.top_k and params.top_p < 1.0:
        return False  # top_p goes by what top_k leaves, and that is more
    if params.min_p and -math.log(params.min_p) <= depth:
        return True
    return mass is not None and bool(scores.exp().sum() > params.top_p * mass)


def _floor(scores: Tensor, params: SamplingParams, mass: Tensor | None) -> float:
    """The least score that top_k, then top_p of what it left, then min_p keep; scores are relative to the best."""
    kept = scores.topk(min(params.top_k or len(scores), len(scores))).values
    floor = float(kept[-1])
    if params.top_p < 1.0:
        weights = kept.exp()
        inside = weights.cumsum(0) - weights < params.top_p * (weights.sum() if mass is None else mass)
        floor = float(kept[int(inside.sum()) - 1])
    return max(floor, math.log(params.min_p)) if params.min_p else floor
