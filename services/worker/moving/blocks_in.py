"""KV on its way into a packed replica: what a peer sends is checked before it is written."""

import asyncio
from collections.abc import Awaitable

from mesh.clients.receive_wire import Blocks, Manifest, StateTensor
from mesh.errors import DataLoss, Unsuitable
from services.worker.engine.arrivals import Room
from services.worker.engine.landing import Landing
from services.worker.engine.mover import Mover
from services.worker.engine.request import EngineRequest
from services.worker.moving.pieces import checksum, unpacked


class BlocksIn:
    """One arrival, under `request`'s id. Nobody believes a peer: of what it says, only sizes and places that fit the
    replica's own geometry, and data that its checksum agrees with, are written."""

    def __init__(self, request: EngineRequest, room: Room, mover: Mover) -> None:
        self.request, self.room, self._mover = request, room, mover

    @property
    def blocks_there(self) -> int:
        """Leading blocks that need not be sent."""
        return self.room.blocks_there

    @property
    def tokens_there(self) -> int:
        """Tokens in them."""
        return self.room.blocks_there * self.room.block_tokens

    @property
    def landing(self) -> Landing:
        """Where whole blocks are written beside the steps."""
        return self.room.landing

    async def make_room(self, blocks: int) -> None:
        """For so many in all. Raises ImportRefused, and UnknownRequest when the arrival is gone."""
        if blocks > self.landing.room:
            grown = self._mover.extend(self.request.request_id, blocks * self.room.block_tokens)
            await asyncio.wrap_future(grown)

    def check_layout(self, layout: bytes) -> None:
        """Raises Unsuitable unless KV of this layout can be used here."""
        if layout != self.room.layout:
            raise Unsuitable(
                f"KV for {self.request.replica} is of another checkpoint, numerics level or kind of machine than here;"
                " compute it from the tokens",
                reason="LAYOUT_MISMATCH",
            )

    def write(self, part: Blocks | StateTensor) -> Awaitable[None]:
        """Done when it is in its place; the same blocks may come again. Raises DataLoss, at once; the future raises
        ImportRefused when there is no room, and UnknownRequest when the arrival is gone."""
        if isinstance(part, StateTensor):
            raise _unusable("a replica that keeps KV in blocks takes no tensors")
        end_layer = part.first_layer + part.layers
        layer_bytes = self.room.layer_bytes[part.first_layer : end_layer]
        if not 0 < part.layers == len(layer_bytes) or not part.blocks:
            raise _unusable(f"layers {part.first_layer} to {end_layer}, of {len(self.room.layer_bytes)}")
        if part.bytes != sum(layer_bytes) * part.blocks:
            raise _unusable(f"{part.blocks} blocks of these layers have {sum(layer_bytes) * part.blocks} bytes")
        if checksum(part.data) != part.checksum:
            raise DataLoss("blocks of a request that moves are not what their checksum says", reason="CORRUPT")
        data = unpacked(part, layer_bytes)
        written = self._mover.import_blocks(self.request.request_id, part.first_layer, part.first_block, data)
        return asyncio.wrap_future(written)

    def complete(self, manifest: Manifest) -> Awaitable[None]:
        """All has come. The future raises ImportIncomplete if it has not, ImportRefused if it is another request."""
        prompt = self.request.prompt_ids
        if manifest.token_ids[: len(prompt)] != prompt:
            raise _unusable("the prompt is another one than was announced")
        done = self._mover.import_complete(self.request.request_id, manifest.token_ids, manifest.kv_tokens)
        return asyncio.wrap_future(done)


def _unusable(problem: str) -> DataLoss:
    return DataLoss(f"what a worker sends of a request that moves cannot be used: {problem}", reason="BAD_STREAM")
