"""A whole state on its way into a replica that runs one sequence at a time."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

from mesh.clients.receive_wire import Blocks, Manifest, StateTensor
from mesh.errors import Unsuitable
from services.worker.engine.mover import Mover
from services.worker.engine.opaque_state import HeldState, StateRoom
from services.worker.engine.request import EngineRequest
from services.worker.moving.state_pieces import Assembly, numbers_from, unusable


class StateIn:
    """One arrival, under `request`'s id; see BlocksIn."""

    blocks_there = tokens_there = 0

    def __init__(self, request: EngineRequest, room: StateRoom, mover: Mover) -> None:
        self._request, self._room, self._mover = request, room, mover
        self._assembly = Assembly(room)

    def check_layout(self, layout: bytes) -> None:
        """Raises Unsuitable unless a state of this layout can be used here."""
        if layout != self._room.layout:
            raise Unsuitable(
                f"a state for {self._request.replica} is of another numerics level, kind of machine or version than "
                "here; compute it from the tokens",
                reason="LAYOUT_MISMATCH",
            )

    def write(self, part: Blocks | StateTensor) -> Awaitable[None]:
        """Done at once. Raises DataLoss."""
        if isinstance(part, Blocks):
            raise unusable("a replica that runs one sequence at a time takes no blocks")
        self._assembly.add(part)
        return asyncio.sleep(0)

    def complete(self, manifest: Manifest) -> Awaitable[None]:
        """All has come. Raises DataLoss; the future raises StateMismatch if it is another request's or model's."""
        prompt, tokens = self._request.prompt_ids, manifest.token_ids
        if tokens[: len(prompt)] != prompt:
            raise unusable("the prompt is another one than was announced")
        state = HeldState(
            request=replace(self._request, generated=tokens[len(prompt) :]),
            layout=self._room.layout,
            seen=tokens[: manifest.kv_tokens],
            tensors=self._assembly.tensors(),
            numbers=numbers_from(manifest.numbers),
        )
        return asyncio.wrap_future(self._mover.import_held(state))
