"""Choosing the next token: a pure function of (seed, position, logits, tokens so far). There is no generator
state, so a request that moves, is preempted or is rebuilt from its tokens draws the same tokens again."""

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mesh.requests import TokenBias

CACHE_ELEMENTS = 1 << 16  # rows are drawn in parts of about this many logits, to stay in the CPU's cache
NUCLEUS_WIDTH = 1024  # top_p first looks among this many best tokens; a flatter row is sorted whole
MAX_SEED = 2**64 - 1
MOST_BIAS, BAN = 100.0, -1e5  # of a guided answer that leaves nothing but banned tokens, one is taken all the same
MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and penalties 1, 0, 0 are off.

    The repetition penalty looks at prompt and generated tokens, presence and frequency at generated ones; biases are
    added to what the penalties leave. `top_logprobs` asks for each token's log-probability and those of so many others.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: tuple[TokenBias, ...] = ()
    top_logprobs: int | None = None

    def check(self) -> None:
        """Raise ValueError naming the first field whose value makes no sense."""
        _within("max_tokens", self.max_tokens, 1, math.inf)
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, math.inf)
        _within("top_p", self.top_p, 0.0, 1.0, above=True)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("repetition_penalty", self.repetition_penalty, 0.0, 100.0, above=True)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("seed", self.seed, 0, MAX_SEED)
        for token in self.stop_token_ids:
            _within("stop_token_ids", token, 0, math.inf)
        for one in self.logit_bias:
            _within("logit_bias", one.bias, -MOST_BIAS, MOST_BIAS)
        _within("top_logprobs", self.top_logprobs or 0, 0, MOST_TOP_LOGPROBS)

    @property
    def penalises(self) -> bool:
        """Whether logits depend on the tokens so far."""
        return bool(self.repetition_penalty != 1.0 or self.presence_penalty or self.frequency_penalty)

    @property
    def is_argmax(self) -> bool:
        """Whether the choice is the plain argmax of what logits there are."""
        return self.temperature == 0.0 and not self.penalises and not self.logit_bias


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


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Token ids for `logits` [rows, vocabulary], one draw a row. A row's token depends on no other row."""
    drawn = [i for i, draw in enumerate(draws) if not draw.is_argmax]
    tokens: list[int] = [0] * len(draws)
    if len(drawn) < len(draws):
        tokens = logits.argmax(-1).tolist()
    rows = max(1, CACHE_ELEMENTS // logits.shape[-1])
    for start in range(0, len(drawn), rows):
        part = drawn[start : start + rows]
        chosen = _draw(logits[part].float(), [draws[i] for i in part])
        for i, token in zip(part, chosen, strict=True):
            tokens[i] = token
    return tokens


def _draw(scores: Tensor, draws: list[Draw]) -> list[int]:
    """Gumbel-max over `scores` [rows, vocabulary] float32, which is overwritten."""
    for row, draw in zip(scores, draws, strict=True):
        if draw.params.penalises:
            _penalise(row, draw)
        if draw.params.logit_bias:
            _bias(row, draw.params.logit_bias)
        if draw.allowed is not None:
            row.masked_fill_(~draw.allowed, -math.inf)
    temperatures = [draw.params.temperature for draw in draws]
    scores /= scores.new_tensor([t or 1.0 for t in temperatures])[:, None]
    _truncate(scores, [draw.params for draw in draws])
    noise = gumbel([(draw.params.seed, len(draw.tokens)) for draw in draws], scores.shape[-1], scores.device)
    if 0.0 in temperatures:
        noise *= scores.new_tensor([float(t > 0.0) for t in temperatures])[:, None]
    chosen: list[int] = scores.add_(noise).argmax(-1).tolist()
    return chosen


def _penalise(row: Tensor, draw: Draw) -> None:
    """Repetition as in Keskar et al. 2019 (CTRL); presence and frequency as in OpenAI's API."""
    params, vocabulary = draw.params, row.shape[0]
    ids = torch.tensor(draw.tokens, device=row.device)
    if params.repetition_penalty != 1.0:
        seen = torch.bincount(ids, minlength=vocabulary) > 0
        scaled = torch.where(row > 0, row / params.repetition_penalty, row * params.repetition_penalty)
        row.copy_(torch.where(seen, scaled, row))
    if params.presence_penalty or params.frequency_penalty:
        counts = torch.bincount(ids[draw.prompt_len :], minlength=vocabulary)
        row -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)


def _bias(row: Tensor, biases: Sequence[TokenBias]) -> None:
    ids = torch.tensor([one.token_id for one in biases], device=row.device)
    row[ids] += row.new_tensor([one.bias if one.bias > -MOST_BIAS else BAN for one in biases])


def _truncate(scores: Tensor, params: list[SamplingParams]) -> None:
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


def gumbel(keys: Sequence[tuple[int, int]], vocabulary: int, device: torch.device | str = "cpu") -> Tensor:
    """Gumbel noise [len(keys), vocabulary] float32, a function of each (seed, position) and the token id only.

    Counter-based: the id is mixed with a 64-bit digest of the key by two rounds of 32-bit finalisers
    (MurmurHash3's, and Ellis' lowbias32), which torch computes in place on int32.
    """
    packed = [struct.unpack("<ii", hashlib.blake2b(struct.pack("<QQ", *key), digest_size=8).digest()) for key in keys]
    key = torch.tensor(packed, dtype=torch.int32, device=device)
    x = torch.arange(vocabulary, dtype=torch.int32, device=device).mul_(-1640531527) + key[:, :1]
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(-2048144789)
    x.bitwise_xor_((x >> 13) & 0x7FFFF).mul_(-1028477387)
    x.bitwise_xor_((x >> 16) & 0xFFFF).bitwise_xor_(key[:, 1:])
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(2146121005)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).mul_(-2073254261)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).bitwise_and_(0x7FFFFFFF)
    uniform = x.float().add_(0.5).mul_(2.0**-31).clamp_(max=1.0 - 2.0**-24)  # finest near 0: the winners' end
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _within(field: str, value: float, low: float, high: float, above: bool = False) -> None:
    if not (low < value <= high if above else low <= value <= high):  # NaN fails both
        bounds = f"{'above' if above else 'at least'} {low}" + (f" and at most {high}" if high < math.inf else "")
        raise ValueError(f"{field} must be {bounds}, got {value}")
