"""What a peer says of a state is not believed."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from mesh.clients.receive_wire import StateTensor, part_from, part_to
from mesh.errors import DataLoss
from services.worker.engine.opaque_state import HeldState, Kind, StateRoom
from services.worker.moving.pieces import MESSAGE_BYTES, checksum
from services.worker.moving.state_pieces import Assembly, manifest_of, numbers_from, state_parts
from tests.services.worker.engine.tiny import prompt, request

TENSORS = {
    "/0/keys": torch.arange(700_000, dtype=torch.float32).view(1, 7, 100_000).transpose(1, 2),
    "/0/state": torch.randn(2, 3).to(torch.bfloat16),
    "/0/count": torch.tensor(3),
    "/1/keys": torch.empty(0, dtype=torch.bool),
}
STATE = HeldState(request("r", prompt(3), generated=(5, 6)), b"layout", prompt(3), TENSORS, {"/a": 3, "/b": None})
KINDS = {path: Kind(one.dtype, (None,) * one.dim()) for path, one in TENSORS.items()}
BYTES = sum(one.nbytes for one in TENSORS.values())


def assembly(most_bytes: int = BYTES) -> Assembly:
    return Assembly(StateRoom(b"layout", KINDS, most_bytes))


def over_the_wire(part: StateTensor) -> StateTensor:
    came = part_from(part_to(part))
    assert isinstance(came, StateTensor)
    return came


def test_a_state_is_put_together_again_bit_by_bit() -> None:
    incoming, parts = assembly(), list(state_parts(STATE))
    assert max(part.bytes for part in parts) == MESSAGE_BYTES
    for part in parts:
        incoming.add(over_the_wire(part))
    came = incoming.tensors()
    assert came.keys() == TENSORS.keys()
    for path, tensor in TENSORS.items():
        assert (came[path].dtype, came[path].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(came[path], tensor)
    manifest = manifest_of(STATE)
    assert (manifest.token_ids, manifest.kv_tokens) == ((*prompt(3), 5, 6), 3)
    assert numbers_from(manifest.numbers) == STATE.numbers


def part(**changes: Any) -> StateTensor:
    made = next(one for one in state_parts(STATE) if one.path == "/0/state")
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/0/elsewhere"},
        {"dtype": "float32"},
        {"dtype": "no_such_type"},
        {"shape": (2, 3, 1)},
        {"shape": (-2, -3)},
        {"shape": (1 << 40, 1 << 40)},
        {"shape": (2, 2)},
        {"offset": 2},
        {"checksum": 7},
        {"data": memoryview(bytes(14)), "checksum": checksum([memoryview(bytes(14))])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_piece_that_has_no_place_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataLoss):
        assembly().add(part(**changes))


def test_no_more_is_taken_than_there_is_room_for() -> None:
    incoming, (*parts, last) = assembly(most_bytes=BYTES - 1), (one for one in state_parts(STATE) if one.bytes)
    for one in parts:
        incoming.add(one)
    with pytest.raises(DataLoss, match="more than"):
        incoming.add(last)


def test_pieces_come_once_and_all_of_them() -> None:
    incoming, first, second, *_ = assembly(), *state_parts(STATE)
    with pytest.raises(DataLoss, match="0 are there"):
        incoming.add(second)
    incoming.add(first)
    with pytest.raises(DataLoss, match="are there"):
        incoming.add(first)
    with pytest.raises(DataLoss, match="of two kinds"):
        incoming.add(dataclasses.replace(second, dtype="int32"))
    with pytest.raises(DataLoss, match="ends after"):
        incoming.tensors()


@pytest.mark.parametrize("text", ["", "[1]", '{"a": [1]}', '{"a": {}}', "[" * 100_000])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(DataLoss):
        numbers_from(text)
    assert numbers_from(json.dumps({"a": 1.5, "b": True, "c": "x"})) == {"a": 1.5, "b": True, "c": "x"}
