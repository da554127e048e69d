"""A sequence on its way into a packed replica: blocks are reserved, filled layer by layer in any order, and at the
end it runs. Whatever goes wrong before that frees the blocks, and costs nobody else anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mesh.requests import FinishReason
from services.worker.engine.batch import Paged
from services.worker.engine.departures import SequenceState
from services.worker.engine.errors import ImportIncomplete, ImportRefused, LayoutMismatch, UnknownRequest
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.landing import Landing
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.engine.roster import Roster


@dataclass(slots=True, eq=False)
class Arrival:
    """One import. `here` blocks lead it that this replica had already: they belong to others too."""

    generation: Paged
    here: int
    received: list[set[int]]  # blocks, by layer
    landing: Landing
    complete: bool = False

    def missing(self, layer: int, end: int) -> set[int]:
        """Blocks before `end` that are not there."""
        return set(range(self.here, end)) - self.received[layer] - self.landing.filled


@dataclass(frozen=True, slots=True)
class Room:
    """What an import that has begun takes: blocks of this layout, so many bytes each in each layer, but for the leading
    ones that are there already."""

    blocks_there: int
    layout: bytes
    layer_bytes: tuple[int, ...]
    block_tokens: int
    landing: Landing


class Arrivals:
    """One replica's. Only the engine's thread calls."""

    def __init__(self, cache: KVCache, roster: Roster, make: Callable[[EngineRequest], Paged], slots: int) -> None:
        self._cache, self._roster, self._make, self._slots = cache, roster, make, slots
        self._arrivals: dict[str, Arrival] = {}  # the youngest last
        self._ended: list[TokenStep] = []

    def __len__(self) -> int:
        return len(self._arrivals)

    def lookup(self, request: EngineRequest) -> int:
        """How many of a request's leading tokens have KV here, in the pool or below."""
        hit = self._cache.find(self._make(request))
        return hit.blocks * self._cache.block_tokens + hit.beyond

    def begin(self, state: SequenceState) -> int:
        """Reserve blocks for a checked request's KV. Returns how many leading blocks need not be sent.
        LayoutMismatch, or ImportRefused when there is no room now."""
        generation = self._make(state.request)
        if generation.root != state.layout:
            raise LayoutMismatch(f"KV of {state.request.request_id} is of another checkpoint, or laid out otherwise")
        if len(self._roster.running) + len(self) >= self._slots:
            raise ImportRefused(f"all {self._slots} slots of {state.request.replica} are taken; move it elsewhere")
        hit = self._cache.find(generation)
        found = hit.blocks + hit.beyond // self._cache.block_tokens
        self._check_room(max(state.blocks, found) - hit.blocks + hit.idle)
        self._cache.enter(generation)
        received: list[set[int]] = [set() for _ in range(self._cache.layers)]
        arrival = Arrival(generation, found, received, Landing(self._cache.beside, found))
        self._grow(arrival, max(state.kv_tokens, generation.kv_len))
        generation.published = found
        self._arrivals[state.request.request_id] = arrival
        return found

    def reserve(self, request: EngineRequest) -> Room:
        """As `begin`, for KV of all that is known of a request that is laid out as here."""
        generation = self._make(request)
        layer_bytes = tuple(self._cache.layer_bytes(layer) for layer in range(self._cache.layers))
        size, kv_tokens = self._cache.block_tokens, len(generation.tokens) - 1
        there = self.begin(SequenceState(request, kv_tokens, generation.root, layer_bytes, size))
        return Room(there, generation.root, layer_bytes, size, self._find(request.request_id).landing)

    def take_in(self, request_id: str, first_layer: int, first: int, layers: Sequence[Tensor]) -> None:
        """Write blocks from `first` on of some layers from `first_layer` on, and make room for them if need be; as
        `extend` and `receive`."""
        self.extend(request_id, (first + len(layers[0])) * self._cache.block_tokens)
        for layer, data in enumerate(layers, first_layer):
            self.receive(request_id, layer, first, data)

    def extend(self, request_id: str, kv_tokens: int) -> None:
        """Reserve blocks for what the sequence has grown to since; ImportRefused when there is no room now, or it may
        never have as many."""
        arrival = self._find(request_id)
        generation, size = arrival.generation, self._cache.block_tokens
        self._check_room(generation.table.missing(kv_tokens))
        if kv_tokens > -(-generation.limit // size) * size:
            raise ImportRefused(f"{kv_tokens // size} blocks: {request_id} may have {generation.limit} tokens")
        self._grow(arrival, kv_tokens)

    def receive(self, request_id: str, layer: int, first: int, data: Tensor) -> None:
        """Write what `export_kv` gave for a layer's blocks from `first` on. The same blocks may come again."""
        arrival, end = self._find(request_id), first + len(data)
        blocks = arrival.generation.table.blocks
        if not arrival.here <= first <= end <= len(blocks) or not 0 <= layer < self._cache.layers:
            raise ImportRefused(
                f"layer {layer}, blocks {first} to {end}: {request_id} takes {arrival.here} to {len(blocks)}"
            )
        if tuple(data.shape[1:]) != (self._cache.layer_bytes(layer),):
            raise ImportRefused(
                f"a block of layer {layer} has {self._cache.layer_bytes(layer)} bytes, not {data.shape[1:]}"
            )
        self._cache.write(layer, blocks[first:end], data)
        arrival.received[layer].update(range(first, end))

    def keep(self, generation: Paged) -> None:
        """One whose KV was computed here, and that waits as if it had come."""
        name, here = generation.request.request_id, len(generation.table.blocks)
        landing = Landing(self._cache.beside, here)
        self._arrivals[name] = Arrival(generation, here, [], landing, complete=True)

    def complete(self, request_id: str, tokens: Sequence[int], kv_tokens: int) -> None:
        """All has come: KV of the leading `kv_tokens` of `tokens`. ImportIncomplete if a block is missing; it may still
        come then. ImportRefused if these are not the tokens of what was here already."""
        arrival = self._find(request_id)
        here = arrival.here * self._cache.block_tokens
        if list(tokens[:here]) != arrival.generation.tokens[:here] or kv_tokens > len(tokens):
            raise ImportRefused(f"{request_id} was announced with other tokens; send the request itself")
        self._check_complete(arrival, -(-kv_tokens // self._cache.block_tokens))
        arrival.landing.end()
        arrival.generation.tokens, arrival.complete = list(tokens), True
        arrival.generation.kv_len = max(kv_tokens, here)

    def take(self, request_id: str) -> Paged | None:
        """What has come under this id, which is no arrival any more; None if there is none. Until all has come, only
        blocks with another behind them are known to be full, and their tokens as far as these were announced."""
        arrival = self._arrivals.pop(request_id, None)
        if arrival is None:
            return None
        arrival.landing.end()
        if not arrival.complete:
            whole = max(arrival.here, self._leading(arrival) - 1)
            arrival.generation.kv_len = whole * self._cache.block_tokens
        return arrival.generation

    def abort(self, request_id: str, finish: FinishReason = FinishReason.CANCELLED, why: str = "") -> list[TokenStep]:
        """Free its blocks; nothing if it is not arriving (any more)."""
        arrival = self._arrivals.pop(request_id, None)
        if arrival is None:
            return []
        arrival.landing.end()
        self._cache.leave(arrival.generation)
        return [TokenStep(request_id, arrival.generation.generated, (), finish, why)]

    def give_way(self) -> bool:
        """Abort the youngest, since the replica needs the blocks for what runs; False if there is none."""
        if not self._arrivals:
            return False
        why = "the import gave way to what runs here; send the request itself, or move it elsewhere"
        self._ended += self.abort(next(reversed(self._arrivals)), FinishReason.ERROR, why)
        return True

    def ended(self) -> list[TokenStep]:
        """What has given way since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def fail(self, why: str, replica: str = "") -> list[TokenStep]:
        """Abort all, or those for `replica` alone, an adapter's name."""
        theirs = [n for n, one in self._arrivals.items() if replica in ("", one.generation.request.replica)]
        return [step for name in theirs for step in self.abort(name, FinishReason.ERROR, why)]

    def _find(self, request_id: str) -> Arrival:
        try:
            return self._arrivals[request_id]
        except KeyError:
            raise UnknownRequest(f"request {request_id} is not arriving here; it may have given way") from None

    def _check_room(self, blocks: int) -> None:
        """Each one that runs must still get a block, as for one that is admitted."""
        spare = self._cache.blocks.idle - len(self._roster.running)
        if blocks > spare:
            raise ImportRefused(
                f"{blocks} more KV blocks are needed, and {max(0, spare)} can be spared; move it elsewhere"
            )

    def _grow(self, arrival: Arrival, tokens: int) -> None:
        self._cache.grow(arrival.generation, tokens)
        self._cache.settle()
        arrival.landing.grow(arrival.generation.table.blocks)

    def _leading(self, arrival: Arrival) -> int:
        """Blocks that lead it and are there in every layer."""
        end = len(arrival.generation.table.blocks)
        lacking = (arrival.missing(layer, end) for layer in range(self._cache.layers))
        return min((min(missing) for missing in lacking if missing), default=end)

    def _check_complete(self, arrival: Arrival, blocks: int) -> None:
        for layer in range(self._cache.layers):
            if missing := arrival.missing(layer, blocks):
                name = arrival.generation.request.request_id
                raise ImportIncomplete(f"{name}: layer {layer} lacks block {min(missing)}; send it")
