"""The one attention function that every model calls: it writes new keys and values to the paged pool and reads
each sequence's context back from it. What it needs of the running step is kept per thread, because not every
architecture hands keyword arguments down to its attention layers."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from services.worker.engine.errors import UnsupportedArchitecture
from services.worker.engine.pool import KVPool, LayerPool

# transformers builds no mask for a name that is not among its mask functions: causality is ours to keep.
ATTENTION = "whimbrel_paged"

# One padded call for all decoding rows beats a call a row while what is gathered stays this small (measured on
# CPU, torch 2.13: 24 against 73 us for 8 rows of 4 KiB, 2772 against 1919 us for 8 rows of 2 MiB).
GATHERED_ROW_BYTES = 128 << 10
GATHERED_STEP_BYTES = 4 << 20


@dataclass(slots=True)
class Score:
    """How a layer turns queries and keys into weights."""

    scale: float
    window: int | None = None  # a token sees itself and the window - 1 before it
    softcap: float | None = None
    sinks: Tensor | None = None  # [query heads]


@dataclass(slots=True)
class Call:
    """One layer's attention in a forward pass."""

    layer: nn.Module
    query: Tensor  # [1, query heads, T, k_dim]
    key: Tensor  # [1, kv heads, T, k_dim]
    value: Tensor  # [1, kv heads, T, v_dim]
    score: Score
    unused: dict[str, Any]  # what else the model said; the probe sees to it that nothing there matters


class Attending(Protocol):
    """What stands behind the attention function during a forward pass: a step, or the probe of model.py."""

    def attend(self, call: "Call") -> Tensor: ...


_thread = threading.local()


@contextmanager
def attending(step: Attending) -> Iterator[None]:
    """Let `step` serve the attention calls of this thread."""
    _thread.step = step
    try:
        yield
    finally:
        del _thread.step


def register() -> None:
    """Make the function known to transformers under the name ATTENTION."""
    AttentionInterface.register(ATTENTION, _attention)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """transformers' calling convention: query [1, heads, T, dim] in, [1, T, heads, dim] out."""
    if attention_mask is not None:
        raise UnsupportedArchitecture("the model builds an attention mask of its own")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    score = Score(scale, sliding_window, softcap, s_aux)
    return _thread.step.attend(Call(module, query, key, value, score, unused)), None


class DecodingRows(Protocol):
    """The rows of a step that bring one token each; `query` is [rows, heads, dim], so is the result."""

    def attend(self, query: Tensor, pool: LayerPool, score: Score) -> Tensor: ...


@dataclass(slots=True)
class PackedStep:
    """One forward pass over a ragged batch [1, T]: `decoding` rows first, then each chunk's rows."""

    pool: KVPool
    slots: Tensor  # [T] where the new keys and values go
    decoding: DecodingRows | None
    decoding_count: int
    chunks: "list[Chunk]"
    padding: int = 0  # rows at the end that repeat the last one

    def attend(self, call: Call) -> Tensor:
        pool, score = self.pool.layers[call.layer.layer_idx], call.score  # type: ignore[index]  # probed: an int
        pool.k.index_copy_(0, self.slots, call.key[0].transpose(0, 1))
        pool.v.index_copy_(0, self.slots, call.value[0].transpose(0, 1))
        rows = call.query[0].transpose(0, 1)
        parts: list[Tensor] = []
        if self.decoding is not None:
            parts.append(self.decoding.attend(rows[: self.decoding_count], pool, score))
        start = self.decoding_count
        for chunk in self.chunks:
            parts.append(chunk.attend(rows[start : start + chunk.count], pool, score))
            start += chunk.count
        if self.padding:
            parts.append(parts[-1][-1:].expand(self.padding, -1, -1))
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


@dataclass(slots=True)
class Context:
    """A sequence's KV: `length` tokens from slot `first` on, or, if `first` is -1, wherever `slots` says."""

    length: int
    first: int
    slots: Tensor | None

    def skipped(self, window: int | None) -> int:
        """How many tokens the next one does not see."""
        return 0 if window is None else max(0, self.length - window)

    def read(self, pool: LayerPool, skip: int) -> tuple[Tensor, Tensor]:
        """Keys and values [1, heads, length - skip, dim]; a view of the pool if the slots are one run."""
        if self.slots is None:
            start, count = self.first + skip, self.length - skip
            return pool.k_run.narrow(2, start, count), pool.v_run.narrow(2, start, count)
        slots = self.slots[skip:]
        k, v = pool.k.index_select(0, slots), pool.v.index_select(0, slots)
        return k.transpose(0, 1)[None], v.transpose(0, 1)[None]


@dataclass(slots=True)
class EachRow:
    """Decoding rows over long contexts: one call a row, on views of the pool."""

    contexts: list[Context]
    _cuts: dict[int | None, "_Cuts | None"] = field(default_factory=dict)

    def attend(self, query: Tensor, pool: LayerPool, score: Score) -> Tensor:
        count = len(self.contexts)
        rows = query.reshape(count, 1, pool.heads, -1, query.shape[-1]).unbind(0)
        keys, values = self._read(pool, score.window)
        mixed = [_mix(row, k, v, None, score) for row, k, v in zip(rows, keys, values, strict=True)]
        return torch.cat(mixed).reshape(count, query.shape[1], -1)

    def _read(self, pool: LayerPool, window: int | None) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Each row's keys and values: where they are runs of slots, by cutting the pool once, not once a row."""
        if window not in self._cuts:
            self._cuts[window] = _cuts(self.contexts, window, pool.k_run.shape[2])
        cuts = self._cuts[window]
        if cuts is not None:
            return cuts.of(pool.k_run), cuts.of(pool.v_run)
        both = [context.read(pool, context.skipped(window)) for context in self.contexts]
        return [k for k, _ in both], [v for _, v in both]


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Widths of the pieces, a gap before each run, that a pool is cut into; and which piece is each row's."""

    widths: list[int]
    places: list[int]

    def of(self, run: Tensor) -> list[Tensor]:
        pieces = run.split_with_sizes(self.widths, 2)
        return [pieces[place] for place in self.places]


def _cuts(contexts: Sequence[Context], window: int | None, slots: int) -> _Cuts | None:
    """None if a context is not a run, or two share slots."""
    widths, places, end = list[int](), [0] * len(contexts), 0
    for row in sorted(range(len(contexts)), key=lambda row: contexts[row].first):
        context = contexts[row]
        start = context.first + context.skipped(window)
        if context.slots is not None or start < end:
            return None
        places[row] = len(widths) + 1
        widths += [start - end, context.first + context.length - start]
        end = context.first + context.length
    return _Cuts([*widths, slots - end], places)


@dataclass(slots=True)
class PaddedRows:
    """Decoding rows over short contexts: gathered to one length, one call for all."""

    slots: Tensor  # [rows * longest]; beyond a row's length, a slot that it has written
    lengths: Tensor  # [rows, 1]
    longest: int
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def attend(self, query: Tensor, pool: LayerPool, score: Score) -> Tensor:
        shape = (len(self.lengths), self.longest, pool.heads, -1)
        k = pool.k.index_select(0, self.slots).view(shape).transpose(1, 2)
        v = pool.v.index_select(0, self.slots).view(shape).transpose(1, 2)
        rows = query.reshape(shape[0], pool.heads, -1, query.shape[-1])
        mixed = _mix(rows, k, v, self._mask(score.window, query), score)
        return mixed.reshape(shape[0], query.shape[1], -1)

    def _mask(self, window: int | None, query: Tensor) -> Tensor:
        if window not in self._masks:
            place = torch.arange(self.longest, device=query.device)[None]
            hidden = place >= self.lengths
            if window is not None:
                hidden |= place < self.lengths - window
            self._masks[window] = _additive(hidden, query.dtype)[:, None, None]
        return self._masks[window]


@dataclass(slots=True)
class Chunk:
    """`count` new tokens at the end of one context."""

    count: int
    context: Context
    _masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def attend(self, query: Tensor, pool: LayerPool, score: Score) -> Tensor:
        """query [count, heads, dim] -> [count, heads, v_dim]. A kv head's query heads become rows of one matrix,
        so that keys are not repeated."""
        count, heads, dim = query.shape
        skip = 0 if score.window is None else max(0, self.context.length - count - score.window + 1)
        k, v = self.context.read(pool, skip)
        rows = query.transpose(0, 1).reshape(1, pool.heads, -1, dim)
        mixed = _mix(rows, k, v, self._mask(score.window, heads // pool.heads, skip, query), score)
        return mixed.reshape(heads, count, -1).transpose(0, 1)  # a card's kernels lay heads out as they like

    def _mask(self, window: int | None, repeat: int, skip: int, query: Tensor) -> Tensor:
        if (window, repeat) not in self._masks:
            length = self.context.length
            place = torch.arange(skip, length, device=query.device)[None]
            own = torch.arange(length - self.count, length, device=query.device)[:, None]
            hidden = place > own
            if window is not None:
                hidden |= place <= own - window
            self._masks[window, repeat] = _additive(hidden, query.dtype).repeat(repeat, 1)
        return self._masks[window, repeat]


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


def _mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, score: Score) -> Tensor:
    """q [N, kv heads, R, dim], k and v [N, kv heads, L, dim], mask additive and broadcast to [N, 1, R, L]."""
    if score.softcap is None and score.sinks is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=score.scale)
    weights = q @ k.transpose(-1, -2) * score.scale
    if score.softcap is not None:
        weights = torch.tanh(weights / score.softcap) * score.softcap
    if mask is not None:
        weights = weights + mask
    if score.sinks is None:
        return torch.softmax(weights, -1, dtype=torch.float32).to(q.dtype) @ v
    return _with_sinks(weights, score.sinks) @ v


def _with_sinks(weights: Tensor, sinks: Tensor) -> Tensor:
    """Softmax with one more, learnt logit a head (gpt-oss), whose share is dropped."""
    _, heads, rows, _ = weights.shape
    group = sinks.numel() // heads
    extra = sinks.view(1, heads, group, 1).expand(len(weights), -1, -1, rows // group)
    both = torch.cat([weights, extra.reshape(len(weights), heads, rows, 1)], -1)
    return torch.softmax(both - both.amax(-1, keepdim=True), -1, dtype=both.dtype)[..., :-1]
