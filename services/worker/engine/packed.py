"""Runs a plan's spans through the model as one ragged batch [1, T] over the paged pool."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from services.worker.engine.adapters import Adapters, Rows
from services.worker.engine.attention import (
    GATHERED_ROW_BYTES,
    GATHERED_STEP_BYTES,
    Chunk,
    Context,
    DecodingRows,
    EachRow,
    PackedStep,
    PaddedRows,
    attending,
)
from services.worker.engine.batch import Paged, Span
from services.worker.engine.pool import KVPool, KVSpec


class PackedRunner:
    """A prepared model with its KV pool. Spans must come one-token ones first, with blocks for their tokens."""

    def __init__(self, module: PreTrainedModel, spec: KVSpec, blocks: int) -> None:
        self.module = module
        self.device = module.device
        self.pool = KVPool(spec, blocks, self.device)
        self.adapters = Adapters(module)
        self._keeps_rows = "logits_to_keep" in inspect.signature(module.forward).parameters

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Write the spans' KV; logits [rows, vocabulary] of those that reach their generation's last token."""
        batch, rows = self._batch(spans)
        options = {"logits_to_keep": rows} if self._keeps_rows else {}
        with attending(self._step(spans, batch[2])), self._adapting(spans):
            output = self.module(input_ids=batch[:1], position_ids=batch[1:2], use_cache=False, **options)
        logits: Tensor = output.logits[0] if self._keeps_rows else output.logits[0, rows]
        return logits

    def _adapting(self, spans: Sequence[Span]) -> AbstractContextManager[None]:
        rows = [Rows(span.generation.request.replica, span.count) for span in spans]
        ends = [Rows(s.generation.request.replica, 1) for s in spans if s.count == s.generation.pending]
        return self.adapters.over(rows, ends if self._keeps_rows else rows)

    def _batch(self, spans: Sequence[Span]) -> tuple[Tensor, Tensor]:
        """[3, T]: token ids, positions, slots; and the row of each span that reaches its last token."""
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        rows: list[int] = []
        for span in spans:
            generation, start = span.generation, span.generation.kv_len
            end = start + span.count
            ids += generation.tokens[start:end]
            positions += range(start, end)
            slots += generation.table.slot_range(start, end)
            if end == len(generation.tokens):
                rows.append(len(ids) - 1)
        batch = torch.tensor((ids, positions, slots)).to(self.device)
        return batch, torch.tensor(rows, dtype=torch.long).to(self.device)

    def _step(self, spans: Sequence[Span], slots: Tensor) -> PackedStep:
        decoding = [span.generation for span in spans if span.count == 1]
        chunks = [Chunk(span.count, self._context(span)) for span in spans if span.count > 1]
        return PackedStep(self.pool, slots, self._decoding(decoding), len(decoding), chunks)

    def _context(self, span: Span) -> Context:
        generation = span.generation
        length, first = generation.kv_len + span.count, generation.table.first_slot
        slots = None if first >= 0 else generation.table.slots(length).to(self.device)
        return Context(length, first, slots)

    def _decoding(self, generations: list[Paged]) -> DecodingRows | None:
        if not generations:
            return None
        longest = max(len(g.tokens) for g in generations)
        row_bytes = longest * self.pool.spec.layer_token_bytes
        small = row_bytes <= GATHERED_ROW_BYTES and row_bytes * len(generations) <= GATHERED_STEP_BYTES
        if len(generations) > 1 and (small or self.device.type != "cpu"):
            return self._padded(generations)
        return EachRow([self._context(Span(g, 1)) for g in generations])

    def _padded(self, generations: list[Paged]) -> PaddedRows:
        lengths = torch.tensor([g.kv_len + 1 for g in generations])[:, None]
        longest = int(lengths.max())
        size = self.pool.spec.block_tokens
        width = -(-longest // size)
        tables = torch.tensor([(g.table.blocks + [0] * width)[:width] for g in generations])
        slots = (tables[:, :, None] * size + torch.arange(size)).view(len(generations), -1)[:, :longest]
        slots = torch.where(torch.arange(longest) < lengths, slots, slots[:, :1])
        return PaddedRows(slots.flatten().to(self.device), lengths.to(self.device), longest)
