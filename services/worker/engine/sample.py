"""Choosing the next token: a pure function of (seed, position, logits, tokens so far). There is no generator
state, so a request that moves, is preempted or is rebuilt from its tokens draws the same tokens again."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mesh.requests import TokenBias
from services.worker.engine.cuts import truncate
from services.worker.engine.noise import gumbel
from services.worker.engine.params import MOST_BIAS, SamplingParams
from services.worker.engine.shortlist import shortlisted

__all__ = ["Draw", "SamplingParams", "sample"]

CACHE_ELEMENTS = 1 << 16  # on a CPU, rows are drawn in parts of about this many logits, to stay in its cache
WIDE = 1 << 13  # tokens: from here on a CPU takes row by row, and looks at no more of a row than may win
BAN = -1e5  # of a guided answer that leaves nothing but banned tokens, one is taken all the same


@dataclass(slots=True)
class Draw:
    """One row to sample: its parameters, and all its tokens, of which the first `prompt_len` are the prompt.
    `allowed` [vocabulary] bool is what a guide leaves to choose from; None is everything."""

    params: SamplingParams
    tokens: list[int]
    prompt_len: int
    allowed: Tensor | None = None

    @property
    def is_argmax(self) -> bool:
        """Whether the choice is the plain argmax of the logits."""
        return self.params.is_argmax and self.allowed is None

    @property
    def key(self) -> tuple[int, int]:
        """Seed and position: what its noise is made of."""
        return self.params.seed, len(self.tokens)


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Token ids for `logits` [rows, vocabulary], one draw a row. A row's token depends on no other row."""
    drawn = [i for i, draw in enumerate(draws) if not draw.is_argmax]
    tokens: list[int] = [0] * len(draws)
    if len(drawn) < len(draws):
        tokens = _best(logits)
    for part in _parts(drawn, logits):
        chosen = _draw(logits[part].float(), [draws[i] for i in part])
        for i, token in zip(part, chosen, strict=True):
            tokens[i] = token
    return tokens


def _parts(rows: list[int], logits: Tensor) -> Iterable[list[int]]:
    """How many rows are drawn together: a matter of speed alone."""
    on_cpu, vocabulary = logits.device.type == "cpu", logits.shape[-1]
    size = len(rows) if not on_cpu else 1 if vocabulary >= WIDE else CACHE_ELEMENTS // vocabulary
    return (rows[start : start + size] for start in range(0, len(rows), size or 1))


def _draw(scores: Tensor, draws: list[Draw]) -> list[int]:
    """Gumbel-max over `scores` [rows, vocabulary] float32, which is overwritten."""
    for row, draw in zip(scores, draws, strict=True):
        _steer(row, draw)
    temperatures = [draw.params.temperature for draw in draws]
    if not any(temperatures):
        return _best(scores)
    scores /= scores.new_tensor([t or 1.0 for t in temperatures])[:, None]
    if len(draws) == 1 and draws[0].params.truncates and scores.shape[-1] >= WIDE:
        return [_among_few(scores[0], draws[0])]
    truncate(scores, [draw.params for draw in draws])
    everything = torch.arange(scores.shape[-1], dtype=torch.int32, device=scores.device)
    noise = gumbel([draw.key for draw in draws], everything)
    if 0.0 in temperatures:
        noise *= scores.new_tensor([float(t > 0.0) for t in temperatures])[:, None]
    return _best(scores.add_(noise))


def _best(scores: Tensor) -> list[int]:
    """Each row's first greatest. On the host by numpy: torch's own argmax takes some ten times as long there."""
    found = scores.float().numpy() if scores.device.type == "cpu" else scores
    return list(map(int, found.argmax(-1).tolist()))


def _among_few(row: Tensor, draw: Draw) -> int:
    """The same, with noise for no more tokens than the cuts leave."""
    tokens = shortlisted(row, draw.params)
    noise = gumbel([draw.key], tokens)[0]
    return int(tokens[(row[tokens] + noise).argmax()])


def _steer(row: Tensor, draw: Draw) -> None:
    """Penalties, then biases, then the guide, in place."""
    params = draw.params
    if params.repetition_penalty != 1.0:
        _discourage(row, set(draw.tokens), params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        counts = Counter(draw.tokens[draw.prompt_len :])
        times = row.new_tensor(list(counts.values()))
        row[_ids(counts, row)] -= params.frequency_penalty * times + params.presence_penalty
    if params.logit_bias:
        _bias(row, params.logit_bias)
    if draw.allowed is not None:
        row.masked_fill_(~draw.allowed, -math.inf)


def _discourage(row: Tensor, seen: Iterable[int], penalty: float) -> None:
    """Repetition as in Keskar et al. 2019 (CTRL); presence and frequency are as in OpenAI's API."""
    ids = _ids(seen, row)
    scores = row[ids]
    row[ids] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _bias(row: Tensor, biases: Sequence[TokenBias]) -> None:
    ids = _ids((one.token_id for one in biases), row)
    row[ids] += row.new_tensor([one.bias if one.bias > -MOST_BIAS else BAN for one in biases])


def _ids(tokens: Iterable[int], row: Tensor) -> Tensor:
    return torch.tensor(list(tokens), dtype=torch.long, device=row.device)
