"""Runs a plan's spans through the model as one ragged batch [1, T] over the paged pool."""

import inspect
import itertools
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mesh.facts import NumericsLevel
from services.worker.engine import experts
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
from services.worker.engine.decoding import BY_TORCH, Decoding
from services.worker.engine.norms import Norms
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.packing import PackBudget, Packing
from services.worker.engine.paged import COLUMNS, FIXED_PIECES, PagedKernel, PagedRows, PageTable, lay_out
from services.worker.engine.passes import Pass, passes
from services.worker.engine.pool import KVPool, KVSpec
from services.worker.engine.recorded import RecordedSteps
from services.worker.engine.rotations import Rotations

T = TypeVar("T")


class PackedRunner:
    """A prepared model with its KV pool. Spans must come one-token ones first, with blocks for their tokens. Steps of
    nothing but decoding rows, up to `most_rows`, may be recorded."""

    def __init__(
        self,
        module: PreTrainedModel,
        spec: KVSpec,
        blocks: int,
        numerics: Numerics = FAST,
        budget: PackBudget | None = None,
        *,
        decoding: Decoding = BY_TORCH,
        most_rows: int = 64,
    ) -> None:
        self.module = module
        self.device = module.device
        self.pool = KVPool(spec, blocks, self.device)
        self.adapters = Adapters(module)
        self.numerics = numerics
        self._experts = experts.fix_rows(module, numerics.tile) if numerics.tile else None
        fast = numerics.level is NumericsLevel.FAST  # elsewhere no token may see the product change that computes it
        self.packing = Packing(module, (fast and budget) or PackBudget())
        self._keeps_rows = "logits_to_keep" in inspect.signature(module.forward).parameters
        self._norms = Norms(module, decoding.norm) if fast and decoding.norm else None
        turns = fast and decoding.rotate
        self._rotations = Rotations(module, self.device, module.dtype, turns) if turns else None
        self._kernel = decoding.kernel
        self._recorded: RecordedSteps | None = None
        if fast and decoding.kernel and decoding.recorder:
            self._recorded = RecordedSteps(module, self.pool, decoding.kernel, decoding.recorder(), most_rows)

    def close(self) -> None:
        """Leave the module as it was."""
        if self._recorded is not None:
            self._recorded.close()
        for exchanged in (self._norms, self._rotations):
            if exchanged is not None:
                exchanged.close()
        self.packing.close()
        if self._experts is not None:
            experts.restore(self.module, self._experts)

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Write the spans' KV; logits [rows, vocabulary], of each span as many as it says."""
        self.packing.advance()
        each = passes(spans, self.numerics)
        parts = [self._forward(one) for one in each]
        if len(parts) == 1:
            return parts[0]
        row, found = itertools.count(), defaultdict[Paged, list[int]](list)
        for span in itertools.chain.from_iterable(one.spans for one in each):
            found[span.generation] += itertools.islice(row, span.rows)
        return torch.cat(parts)[[row for span in spans for row in found[span.generation]]]

    def _forward(self, one: Pass) -> Tensor:
        """Logits of the rows that end their generation, in the order of the pass's spans."""
        if self._recorded is not None and self._recorded.serve(one.spans) and not self._adapts(one):
            return self._recorded.run(one.spans)
        batch, ends = self._batch(one)
        rows = torch.tensor(_repeated(ends, one.rows), dtype=torch.long).to(self.device)  # the head multiplies too
        options = {"logits_to_keep": rows} if self._keeps_rows else {}
        with attending(self._step(one, batch[2])), self._adapting(one):
            output = self.module(input_ids=batch[:1], position_ids=batch[1:2], use_cache=False, **options)
        logits: Tensor = output.logits[0] if self._keeps_rows else output.logits[0, rows]
        return logits[: len(ends)]

    def _adapts(self, one: Pass) -> bool:
        return any(span.generation.request.replica in self.adapters.names for span in one.spans)

    def _adapting(self, one: Pass) -> AbstractContextManager[None]:
        rows = _repeated([Rows(span.generation.request.replica, span.count) for span in one.spans], one.rows)
        ends = [Rows(span.generation.request.replica, span.rows) for span in one.spans if span.rows]
        at_head = _repeated(ends, one.rows) if self._keeps_rows else rows
        return self.adapters.over(rows, at_head, whole=one.rows > 0)

    def _batch(self, one: Pass) -> tuple[Tensor, list[int]]:
        """[3, T]: token ids, positions, slots; and the rows whose logits are wanted. What is repeated writes the same
        KV to the same slot again."""
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        rows: list[int] = []
        for span in one.spans:
            generation, start, end = span.generation, span.start, span.end
            ids += span.ids
            positions += range(start, end)
            slots += generation.table.slot_range(start, end)
            rows += range(len(ids) - span.rows, len(ids))
        columns = [_repeated(column, one.rows) for column in (ids, positions, slots)]
        return torch.tensor(columns).to(self.device), rows

    def _step(self, one: Pass, slots: Tensor) -> PackedStep:
        decoding = [span for span in one.spans if span.count == 1]
        chunks = [Chunk(span.count, self._context(span)) for span in one.spans if span.count > 1]
        padding = max(0, one.rows - len(decoding))
        return PackedStep(self.pool, slots, self._decoding(decoding), len(decoding), chunks, padding)

    def _context(self, span: Span) -> Context:
        table, length = span.generation.table, span.end
        slots = None if table.first_slot >= 0 else table.slots(length).to(self.device)
        return Context(length, table.first_slot, slots)

    def _decoding(self, spans: list[Span]) -> DecodingRows | None:
        if not spans:
            return None
        if self._kernel is not None:
            return self._paged(self._kernel, spans)
        longest = max(span.end for span in spans)
        row_bytes = longest * self.pool.spec.layer_token_bytes
        small = row_bytes <= GATHERED_ROW_BYTES and row_bytes * len(spans) <= GATHERED_STEP_BYTES
        together = self.numerics.level is NumericsLevel.FAST and len(spans) > 1
        if together and (small or self.device.type != "cpu"):
            return self._padded([span.generation for span in spans])
        return EachRow([self._context(span) for span in spans])

    def _paged(self, kernel: PagedKernel, spans: list[Span]) -> PagedRows:
        count, width = len(spans), len(spans) + len(spans) % 2  # as in RecordedSteps: kernels like even addresses
        numbers = torch.from_numpy(lay_out(spans, count, width)).to(self.device)
        _, _, _, lengths, starts = numbers[: COLUMNS * width].view(COLUMNS, -1)[:, :count].unbind()
        table = PageTable(lengths, starts, numbers[COLUMNS * width :], self.pool.spec.block_tokens)
        return PagedRows(kernel, table, 0 if self.numerics.level is NumericsLevel.FAST else FIXED_PIECES)

    def _padded(self, generations: list[Paged]) -> PaddedRows:
        lengths = torch.tensor([g.kv_len + 1 for g in generations])[:, None]
        longest = int(lengths.max())
        size = self.pool.spec.block_tokens
        width = -(-longest // size)
        tables = torch.tensor([(g.table.blocks + [0] * width)[:width] for g in generations])
        slots = (tables[:, :, None] * size + torch.arange(size)).view(len(generations), -1)[:, :longest]
        slots = torch.where(torch.arange(longest) < lengths, slots, slots[:, :1])
        return PaddedRows(slots.flatten().to(self.device), lengths.to(self.device), longest)


def _repeated(column: list[T], rows: int) -> list[T]:
    """Its last one repeated until there are `rows`; as it is if it has none, or more."""
    return column + column[-1:] * (rows - len(column))
