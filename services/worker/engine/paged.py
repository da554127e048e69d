"""Decoding rows that a kernel serves: where their contexts lie, told in one row of numbers for the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from services.worker.engine.attention import Score
from services.worker.engine.batch import Span
from services.worker.engine.pool import LayerPool

COLUMNS = 5  # ids, positions, slots, lengths, starts
FIXED_PIECES = 8
PROGRAMS = 1024  # some eight for each multiprocessor of a large GPU: as many as hide the memory's latency


@dataclass(frozen=True, slots=True)
class PageTable:
    """Where rows' contexts lie, in int64 on their device."""

    lengths: Tensor  # [rows] tokens
    starts: Tensor  # [rows] where a row's blocks begin in the next
    blocks: Tensor  # of all rows, end to end
    block_tokens: int


class PagedKernel(Protocol):
    """paged_kernel.attend."""

    def __call__(self, query: Tensor, pool: LayerPool, score: Score, table: PageTable, pieces: int) -> Tensor:
        """See there."""


@dataclass(frozen=True, slots=True)
class PagedRows:
    """One call for all rows, which reads on the device how long each is. `pieces` of each context are attended to side
    by side; 0: as many as fill the device, so that the number of rows shows in the last bits."""

    kernel: PagedKernel
    table: PageTable
    pieces: int = FIXED_PIECES

    def attend(self, query: Tensor, pool: LayerPool, score: Score) -> Tensor:
        """See DecodingRows."""
        return self.kernel(query, pool, score, self.table, self.pieces or _pieces(len(query) * pool.heads))


def _pieces(programs: int) -> int:
    """A power of two; few where there are many rows, but never so few that the longest is waited for alone."""
    return 1 << (max(4, min(32, PROGRAMS // programs)).bit_length() - 1)


def lay_out(spans: Sequence[Span], rows: int, width: int) -> NDArray[np.int64]:
    """[COLUMNS * width + blocks of all]: of one-token spans their ids, positions, slots, lengths and starts, each
    `width` numbers of which `rows` count; the last span is repeated until there are as many. Then the blocks."""
    tables = [span.generation.table.block_ids for span in spans]
    head = np.zeros((COLUMNS, width), np.int64)
    columns = head[:, : len(spans)]
    columns[0] = [span.ids[0] for span in spans]
    columns[1] = [span.start for span in spans]
    columns[2] = [span.generation.table.slot(span.start) for span in spans]
    columns[3] = columns[1] + 1
    columns[4, 1:] = np.cumsum([len(table) for table in tables[:-1]])
    head[:, len(spans) : rows] = columns[:, -1:]
    return np.concatenate([head.reshape(-1), *tables])
