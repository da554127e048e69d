"""A sequence on its way out of a packed replica: what it is, and its KV block by block. Full blocks never change, so
they may leave while it goes on; the last, partial one leaves once it stands still."""

from dataclasses import dataclass, replace

from torch import Tensor

from services.worker.engine.batch import Paged
from services.worker.engine.beside import Beside, Bytes, Mark
from services.worker.engine.errors import NotExportable
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.request import EngineRequest
from services.worker.engine.roster import Roster


@dataclass(frozen=True, slots=True)
class SequenceState:
    """A sequence between two steps. `request` has all its tokens; seed, penalties and guides start from those."""

    request: EngineRequest
    kv_tokens: int  # leading tokens whose KV can be exported; less than all of them
    layout: bytes  # blocks of equal layouts are interchangeable: same checkpoint, same geometry
    layer_bytes: tuple[int, ...]  # of one block in each layer
    block_tokens: int
    paused: bool = False

    @property
    def layers(self) -> int:
        """Layers that have KV."""
        return len(self.layer_bytes)

    @property
    def blocks(self) -> int:
        """Blocks that hold its KV, the last of which may be partial."""
        return -(-self.kv_tokens // self.block_tokens)

    @property
    def full_blocks(self) -> int:
        """Blocks that will not change any more."""
        return self.kv_tokens // self.block_tokens


@dataclass(frozen=True, slots=True)
class Stand:
    """A sequence that stands still, and its KV from some block on: bytes [blocks, block bytes] of each layer."""

    state: SequenceState
    rest: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Lap:
    """A sequence as it is now, and where its full blocks from `first` on lie. While it goes on, another thread may
    read them: `stop` proves whether they were still its own."""

    state: SequenceState
    first: int
    blocks: tuple[int, ...]
    term: int  # of its table
    beside: Beside
    mark: Mark  # when they were full

    @property
    def end(self) -> int:
        """The first block that is not full yet."""
        return self.first + len(self.blocks)

    def read(self, first: int, end: int, into: Bytes) -> None:
        """Copy the sequence's blocks `first` to `end`; any thread may. If it has given way meanwhile, that is of no
        use."""
        self.beside.read(self.blocks[first - self.first : end - self.first], into, self.mark)


class Departures:
    """One replica's. Only the engine's thread calls."""

    def __init__(self, cache: KVCache, roster: Roster) -> None:
        self._cache, self._roster = cache, roster

    def describe(self, request_id: str) -> SequenceState:
        """The sequence as it is now; UnknownRequest if it is not here."""
        generation = self._roster.find(request_id)
        return SequenceState(
            request=replace(generation.request, generated=tuple(generation.answer)),
            kv_tokens=generation.kv_len,
            layout=generation.root,
            layer_bytes=tuple(self._cache.layer_bytes(layer) for layer in range(self._cache.layers)),
            block_tokens=self._cache.block_tokens,
            paused=generation in self._roster.paused,
        )

    def lap(self, request_id: str, first: int, term: int | None = None) -> Lap:
        """What has filled, from block `first` on. NotExportable if it has given way since `term`; None: no matter."""
        table = self._held(request_id, term).table
        state = self.describe(request_id)
        blocks, beside = tuple(table.blocks[first : state.full_blocks]), self._cache.beside
        return Lap(state, first, blocks, table.terms, beside, beside.mark())

    def export_kv(self, request_id: str, layer: int, first: int, end: int) -> Tensor:
        """Bytes [end - first, block bytes of the layer] of its blocks `first` to `end`, on the pool's device.
        NotExportable if a block is not full yet and the sequence goes on, or if it has given way meanwhile."""
        generation = self._roster.find(request_id)
        ready = self._ready(generation)
        if not 0 <= first <= end <= ready or not 0 <= layer < self._cache.layers:
            raise NotExportable(f"layer {layer}, blocks {first} to {end}: {ready} blocks of {request_id} can leave now")
        return self._cache.read(layer, generation.table.blocks[first:end])

    def pause(self, request_id: str) -> None:
        """No step from now on; its blocks stay, unless nobody else could advance. Ends by `resume` or a cancel."""
        self._roster.pause(self._roster.find(request_id))

    def stop(self, request_id: str, first: int, term: int | None = None) -> Stand:
        """Pause it, and all that is left to leave when `first` blocks have left. NotExportable, and it goes on, if it
        has given way, since `term` or now: then what has left may not have been its own."""
        if not self._held(request_id, term).table.blocks:
            raise _gave_way(request_id)
        self.pause(request_id)
        state = self.describe(request_id)
        first = min(first, state.blocks)
        rest = (self.export_kv(request_id, layer, first, state.blocks).cpu() for layer in range(state.layers))
        return Stand(state, tuple(rest))

    def lap_or_stop(self, request_id: str, first: int, term: int) -> Lap | Stand:
        """As `stop` if no more than one block has filled from `first` on, else as `lap`."""
        lap = self.lap(request_id, first, term)
        return lap if len(lap.blocks) > 1 else self.stop(request_id, first, term)

    def resume(self, request_id: str) -> None:
        """Go on. Nothing happens to one that is not paused."""
        generation = self._roster.find(request_id)
        if generation in self._roster.paused:
            self._roster.resume(generation)

    def give_way(self) -> bool:
        """Free the blocks of the one that was paused last, so that others can advance; False if none has any."""
        for generation in reversed(self._roster.paused):
            if generation.table.blocks:
                self._cache.give_way(generation)
                return True
        return False

    def _held(self, request_id: str, term: int | None) -> Paged:
        generation = self._roster.find(request_id)
        if term not in (None, generation.table.terms):
            raise _gave_way(request_id)
        return generation

    def _ready(self, generation: Paged) -> int:
        whole = generation.kv_len // self._cache.block_tokens
        if generation in self._roster.paused:
            return -(-generation.kv_len // self._cache.block_tokens)
        return whole


def _gave_way(request_id: str) -> NotExportable:
    return NotExportable(f"{request_id} has given way to others, and its blocks with it; send its tokens")
