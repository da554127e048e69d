"""Moving sequences between engines, for whoever carries the bytes: every call is a Future that is done between two
steps, so nothing here stops what runs. The order of a move is the caller's business."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from torch import Tensor

from services.worker.engine.arrivals import Arrivals, Room
from services.worker.engine.departures import Departures, Lap, SequenceState, Stand
from services.worker.engine.engine import Engine
from services.worker.engine.errors import NotMovable, UnknownRequest
from services.worker.engine.opaque_state import HeldState, StateRoom
from services.worker.engine.replica import Replica
from services.worker.engine.request import EngineRequest, TokenStep


@runtime_checkable
class Movable(Protocol):
    """A replica whose sequences move block by block."""

    departures: Departures
    arrivals: Arrivals


@runtime_checkable
class Adopting(Protocol):
    """A replica on which a request may go on as another."""

    def adopt(self, former_id: str, request: EngineRequest) -> tuple[int, list[TokenStep]]:
        """Go on with a checked request from what is here under `former_id`, if anything is. How many leading tokens
        need not be computed, and the last steps of what has ended by that: of the former one, CANCELLED."""

    def warm(self, request: EngineRequest) -> int:
        """Compute a checked request's tokens, and keep it, choosing none. How many are there already."""

    def warm_on(self, request: EngineRequest) -> int:
        """The same with more tokens than before; UnknownRequest if it is not here (any more)."""


@runtime_checkable
class Holding(Protocol):
    """A replica whose sequences move as a whole."""

    def export_state(self, request_id: str) -> HeldState:
        """A copy on the host of what is held of a request; NotExportable if nothing is, UnknownRequest."""

    def reserve_state(self, request: EngineRequest) -> StateRoom:
        """Make room for what another worker holds of a checked request; ImportRefused."""

    def import_state(self, state: HeldState) -> None:
        """Keep it for when its request, for which there is room, is adopted. LayoutMismatch, StateMismatch, or
        UnknownRequest."""


class Mover:
    """Both ends of moves on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self, request_id: str) -> Future[SequenceState]:
        """What the sequence is now."""
        return self._engine.ask(request_id, lambda replica: _movable(replica).departures.describe(request_id))

    def leave(self, request_id: str, first: int) -> Future[Lap | HeldState]:
        """What is full of it, from block `first` on, to be read beside the steps; or, from a replica that runs one
        sequence at a time, a copy of all that is held of it."""

        def left(replica: Replica) -> Lap | HeldState:
            if isinstance(replica, Movable):
                return replica.departures.lap(request_id, first)
            return _holding(replica).export_state(request_id)

        return self._engine.ask(request_id, left)

    def lap_or_stop(self, request_id: str, first: int, term: int) -> Future[Lap | Stand]:
        """What has filled since, or, if that is one block or none, `stop`; what left within `term` must be its own."""

        def asked(replica: Replica) -> Lap | Stand:
            return _movable(replica).departures.lap_or_stop(request_id, first, term)

        return self._engine.ask(request_id, asked)

    def export(self, request_id: str, layers: range, first: int, end: int) -> Future[tuple[Tensor, ...]]:
        """Bytes [end - first, block bytes] of each of some layers, of its blocks `first` to `end`, on the host."""

        def exported(replica: Replica) -> tuple[Tensor, ...]:
            departures = _movable(replica).departures
            return tuple(departures.export_kv(request_id, layer, first, end).cpu() for layer in layers)

        return self._engine.ask(request_id, exported)

    def stop(self, request_id: str, first: int) -> Future[Stand]:
        """Pause it, and export what is left from block `first` on."""
        return self._engine.ask(request_id, lambda replica: _movable(replica).departures.stop(request_id, first))

    def reserve(self, request: EngineRequest) -> Future[Room | StateRoom]:
        """Make room for what another worker has of `request`, which arrives under its id: blocks, or a whole state.
        Raises as `Engine.submit` does, and ImportRefused."""
        return self._engine.expect(request, lambda replica: (_room(replica, request), []))

    def extend(self, request_id: str, kv_tokens: int) -> Future[None]:
        """Make room for KV of so many tokens in all."""
        return self._engine.ask(request_id, lambda replica: _movable(replica).arrivals.extend(request_id, kv_tokens))

    def import_blocks(self, request_id: str, first_layer: int, first: int, layers: Sequence[Tensor]) -> Future[None]:
        """Write blocks from `first` on of consecutive layers, with more room if need be."""
        return self._engine.ask(
            request_id, lambda replica: _movable(replica).arrivals.take_in(request_id, first_layer, first, layers)
        )

    def import_complete(self, request_id: str, tokens: Sequence[int], kv_tokens: int) -> Future[None]:
        """All has come that there is: KV of the leading `kv_tokens` of `tokens`."""
        return self._engine.ask(
            request_id, lambda replica: _movable(replica).arrivals.complete(request_id, tokens, kv_tokens)
        )

    def adopt(self, former_id: str, request: EngineRequest) -> Future[int]:
        """Have `request` go on from what is here under `former_id`: what has arrived of it, in whole or in part, or a
        sequence of its that runs, waits or stands still, under a log that may be longer or shorter. How many of its
        leading tokens have KV; the others are computed, and all of them if nothing is here. Raises as
        `Engine.submit` does."""
        return self._engine.expect(request, lambda replica: _adopting(replica).adopt(former_id, request))

    def warm(self, request: EngineRequest) -> Future[int]:
        """Have a request's tokens computed beside what runs, for when it is adopted under this id; said again with more
        tokens, it goes on. How many there were already. A TokenStep without tokens says that all are there; one with a
        finish, that it was cancelled or has given way. Raises as `Engine.submit` does."""
        try:
            return self._engine.ask(request.request_id, lambda replica: _adopting(replica).warm_on(request))
        except UnknownRequest:
            return self._engine.expect(request, lambda replica: (_adopting(replica).warm(request), []))

    def import_held(self, state: HeldState) -> Future[None]:
        """Keep it for when it is adopted; its request, for which room was made, has the tokens of the state."""
        return self._engine.ask(state.request.request_id, lambda replica: _holding(replica).import_state(state))


def _adopting(replica: Replica) -> Adopting:
    if not isinstance(replica, Adopting):
        raise NotMovable(f"{replica.name} generates nothing that could move")
    return replica


def _room(replica: Replica, request: EngineRequest) -> Room | StateRoom:
    if isinstance(replica, Movable):
        return replica.arrivals.reserve(request)
    return _holding(replica).reserve_state(request)


def _holding(replica: Replica) -> Holding:
    if not isinstance(replica, Holding):
        raise NotMovable(f"{replica.name} keeps KV in blocks; move these")
    return replica


def _movable(replica: Replica) -> Movable:
    if not isinstance(replica, Movable):
        raise NotMovable(f"{replica.name} does not keep KV in blocks; send the request's tokens instead")
    return replica
