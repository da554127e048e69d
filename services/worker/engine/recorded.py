"""Decoding steps recorded once for each number of rows and replayed from then on: what a step of a small batch takes
on a GPU is mostly the launching of its kernels, and one launch replays them all."""

import functools
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from services.worker.engine.attention import PackedStep, attending
from services.worker.engine.batch import Span
from services.worker.engine.paged import COLUMNS, PagedKernel, PagedRows, PageTable, lay_out
from services.worker.engine.pool import KVPool
from services.worker.engine.staging import Staging

log = logging.getLogger(__name__)

ROW_BLOCKS = 4096  # of a row on average, in what is staged; steps over more run unrecorded

Replay = Callable[[], Tensor]
Record = Callable[[Callable[[], Tensor]], Replay]  # RuntimeError if what is called cannot be recorded


class RecordedSteps:
    """Of one replica at level fast, up to `most_rows` rows. A step of another number is filled up to the next power of
    two by repeating its last row, which writes the same KV to the same slot again. All calls come from the thread that
    runs the replica."""

    def __init__(
        self, module: PreTrainedModel, pool: KVPool, kernel: PagedKernel, record: Record, most_rows: int
    ) -> None:
        self._module, self._pool, self._kernel, self._record = module, pool, kernel, record
        self._width = max(2, _filled(most_rows))  # even: kernels are compiled for addresses that are multiples of 16
        self._staging = Staging(self._width * (COLUMNS + min(pool.blocks, ROW_BLOCKS)), module.device)
        self._tried: set[int] = set()
        self._replays: dict[int, Replay] = {}
        self._records = True

    def serve(self, spans: Sequence[Span]) -> bool:
        """Whether these can be run here."""
        if len(spans) > self._width or any(span.count > 1 for span in spans):
            return False
        blocks = sum(len(span.generation.table.blocks) for span in spans)
        return COLUMNS * self._width + blocks <= self._staging.capacity

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Logits [rows wanted, vocabulary]; until the next call if they come from a recording."""
        rows = _filled(len(spans))
        self._staging.put(lay_out(spans, rows, self._width))
        logits = self._logits(rows)
        wanted = [row for row, span in enumerate(spans) if span.rows]
        return logits[: len(spans)] if len(wanted) == len(spans) else logits[wanted]

    def close(self) -> None:
        """Free the recordings and their memory."""
        self._replays.clear()

    def _logits(self, rows: int) -> Tensor:
        """The first time as it is, which compiles what has to be; the second time recorded."""
        replay = self._replays.get(rows)
        if replay is None and rows in self._tried and self._records:
            replay = self._recorded(rows)
        self._tried.add(rows)
        return self._compute(rows) if replay is None else replay()

    def _recorded(self, rows: int) -> Replay | None:
        try:
            self._replays[rows] = self._record(lambda: self._compute(rows))
        except RuntimeError as error:  # torch's, of what reads results back while it runs, or is out of memory
            self._records = False
            log.warning(
                "decoding steps are not recorded", extra={"model": type(self._module).__name__, "why": str(error)}
            )
        return self._replays.get(rows)

    def _compute(self, rows: int) -> Tensor:
        staged = self._staging.tensor
        ids, positions, slots, lengths, starts = staged[: COLUMNS * self._width].view(COLUMNS, -1)[:, :rows].unbind()
        table = PageTable(lengths, starts, staged[COLUMNS * self._width :], self._pool.spec.block_tokens)
        decoding = PagedRows(self._kernel, table, pieces=0)
        with attending(PackedStep(self._pool, slots, decoding, rows, [])):
            output = self._module(input_ids=ids[None], position_ids=positions[None], use_cache=False)
        logits: Tensor = output.logits[0]
        return logits


def _filled(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()


def on_cuda() -> Record:
    """Into CUDA graphs that share their memory: one is replayed at a time, and what it gave is used up before the
    next. Other threads may use the device meanwhile."""
    pool, aside = torch.cuda.graph_pool_handle(), _aside()

    def record(compute: Callable[[], Tensor]) -> Replay:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                logits = compute()
        finally:
            torch.cuda.set_stream(stream)  # which torch leaves undone where a recording fails

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    return record


@functools.cache
def _aside() -> torch.cuda.Stream:
    """Where everything is recorded: for each stream that cuBLAS has seen it keeps a workspace, 32 MiB on an H100."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
