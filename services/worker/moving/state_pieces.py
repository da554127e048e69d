"""A whole state cut into messages of about a MiB, and put together again: tensors by their paths, numbers as JSON. No
word of a peer is believed before it fits the model that the state is for."""

import json
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mesh.clients.receive_wire import Manifest, StateTensor
from mesh.errors import DataLoss
from services.worker.engine.opaque_state import NUMBERS, HeldState, Number, StateRoom
from services.worker.moving.pieces import MESSAGE_BYTES, checksum

DTYPES = {str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}


def state_parts(state: HeldState) -> Iterator[StateTensor]:
    """Its tensors; one without elements is a message, too. Nothing is copied that lies in one run of memory."""
    for path, tensor in state.tensors.items():
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, max(1, len(data)), MESSAGE_BYTES):
            piece = data[start : start + MESSAGE_BYTES]
            yield StateTensor(path, dtype, shape, start, piece, checksum([piece]))


def manifest_of(state: HeldState) -> Manifest:
    """What is said of it when its tensors have left."""
    tokens = (*state.request.prompt_ids, *state.request.generated)
    return Manifest(tokens, len(state.seen), json.dumps(dict(state.numbers)))


class Assembly:
    """A state that comes in. Each tensor's pieces come in order; all together have no more bytes than its room."""

    def __init__(self, room: StateRoom) -> None:
        self._room, self._left = room, room.most_bytes
        self._begun: dict[str, tuple[Tensor, Tensor]] = {}  # each tensor, and its bytes
        self._filled: dict[str, int] = {}

    def add(self, part: StateTensor) -> None:
        """Put a piece in its place. Raises DataLoss if it has none, or is not what its checksum says."""
        if part.path not in self._begun:
            self._begin(part)
        tensor, data = self._begun[part.path]
        if (DTYPES.get(part.dtype), part.shape) != (tensor.dtype, tuple(tensor.shape)):
            raise unusable(f"{part.path} is said to be of two kinds")
        end = part.offset + part.bytes
        if part.offset != self._filled[part.path] or end > len(data):
            raise unusable(f"bytes {part.offset} to {end} of {part.path}, of which {self._filled[part.path]} are there")
        if checksum([part.data]) != part.checksum:
            raise DataLoss("a state that moves is not what its checksum says", reason="CORRUPT")
        if part.bytes:
            data[part.offset : end] = torch.frombuffer(bytearray(part.data), dtype=torch.uint8)
        self._filled[part.path] = end

    def tensors(self) -> Mapping[str, Tensor]:
        """All of it. Raises DataLoss if some is missing."""
        for path, (_, data) in self._begun.items():
            if self._filled[path] < len(data):
                raise unusable(f"{path} ends after {self._filled[path]} bytes of {len(data)}")
        return {path: tensor for path, (tensor, _) in self._begun.items()}

    def _begin(self, part: StateTensor) -> None:
        dtype, kind = DTYPES.get(part.dtype), self._room.kinds.get(part.path)
        if dtype is None or kind is None or min(part.shape, default=0) < 0 or not kind.allows(dtype, part.shape):
            raise unusable(f"{part.path}, {part.dtype} {list(part.shape)}, is in no state of this model")
        self._left -= math.prod(part.shape) * dtype.itemsize
        if self._left < 0:
            raise unusable(f"it has more than {self._room.most_bytes} bytes")
        tensor = torch.empty(part.shape, dtype=dtype)
        self._begun[part.path] = tensor, tensor.view(-1).view(torch.uint8)
        self._filled[part.path] = 0


def numbers_from(text: str) -> Mapping[str, Number]:
    """A manifest's. Raises DataLoss."""
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unusable(f"its numbers are no JSON: {error}") from error
    if not isinstance(numbers, dict) or not all(isinstance(value, NUMBERS) for value in numbers.values()):
        raise unusable("its numbers are no JSON object of numbers")
    return numbers


def unusable(problem: str) -> DataLoss:
    """What a peer sends cannot be used."""
    return DataLoss(f"the state of a request that moves cannot be used: {problem}", reason="BAD_STREAM")
