"""Writes one part: pieces where the plan says, zeros between them, each unit hashed on its way to the disk."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import torch
from blake3 import blake3

from mesh.checkpoint.expression import Expression
from mesh.checkpoint.journal import Journal
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.pieces import pieces
from mesh.checkpoint.plan import Piece, Plan, PlannedUnit
from mesh.checkpoint.records import Unit
from mesh.checkpoint.stream import Reader
from mesh.checkpoint.verify import hash_range

BUFFER_BYTES = 1 << 20  # gathers small tensors
HASHED_BYTES = 8 << 20  # what is written and hashed at a time, so that the hash finds it in the cache


class PartWriter:
    """Goes on where `journal` ends, if the file at `path` has what it says; else from the start."""

    def __init__(self, path: Path, plan: Plan, journal: Journal, pace: Pace) -> None:
        self._path, self._plan, self._journal, self._pace = path, plan, journal, pace
        if not _is_as_journaled(path, plan, journal.hashes):
            journal.keep(0)

    def write(
        self, tensors: Mapping[str, Expression], reader: Reader, on_bytes: Callable[[int], None]
    ) -> tuple[Unit, ...]:
        """Writes and syncs the file; `on_bytes` hears the bytes written so far. Returns the units with their hashes."""
        done = len(self._journal.hashes)
        rest = self._plan.units[done:]
        arriving = reader.tensors(_groups(rest, tensors, self._pace.chunk_bytes))
        with self._path.open("r+b" if done else "wb", buffering=BUFFER_BYTES) as file:
            file.seek(file.truncate(_end(self._plan, done)))
            on_bytes(file.tell())
            synced, hashes = file.tell(), []
            for unit in rest:
                hashes.append(_write_unit(file, unit, tensors, arriving, on_bytes))
                if file.tell() - synced >= self._pace.sync_bytes or unit is rest[-1]:
                    file.flush()
                    os.fdatasync(file.fileno())
                    self._journal.append(hashes)
                    synced, hashes = file.tell(), []
            _pad(file, self._plan.bytes)
            file.flush()
            os.fsync(file.fileno())
        return tuple(map(_finished, self._plan.units, self._journal.hashes))


def _is_as_journaled(path: Path, plan: Plan, hashes: Sequence[str]) -> bool:
    """Whether the file has the units that a journal names, judged by its size and by the last of them."""
    if not hashes:
        return True
    if len(hashes) > len(plan.units) or not path.is_file() or path.stat().st_size < _end(plan, len(hashes)):
        return False
    unit = plan.units[len(hashes) - 1]
    with path.open("rb") as file:
        file.seek(unit.offset)
        return hash_range(file, unit.bytes) == hashes[-1]


def _end(plan: Plan, done: int) -> int:
    """Bytes of the file once `done` units are in it."""
    return plan.units[done - 1].offset + plan.units[done - 1].bytes if done else 0


def _groups(
    units: Sequence[PlannedUnit], tensors: Mapping[str, Expression], chunk_bytes: int
) -> Iterator[Iterator[Expression]]:
    """What to evaluate, in order; the experts of a layer are one group, for they may be slices of the same."""
    for _, members in groupby(units, key=lambda unit: (unit.kind, unit.layer)):
        yield (
            small
            for unit in members
            for piece in unit.pieces
            for small in pieces(_expression(piece, tensors), chunk_bytes)
        )


def _expression(piece: Piece, tensors: Mapping[str, Expression]) -> Expression:
    tensor = tensors[piece.tensor]
    return tensor if piece.expert is None else tensor.row(piece.expert)


def _write_unit(
    file: BinaryIO,
    unit: PlannedUnit,
    tensors: Mapping[str, Expression],
    arriving: Iterator[torch.Tensor],
    on_bytes: Callable[[int], None],
) -> str:
    """Returns its hash."""
    hasher = blake3()
    _pad(file, unit.offset)
    for piece in unit.pieces:
        hasher.update(_pad(file, piece.offset))
        end = piece.offset + _expression(piece, tensors).bytes
        while file.tell() < end:
            data = bytes_of(next(arriving))
            for start in range(0, len(data), HASHED_BYTES):
                chunk = data[start : start + HASHED_BYTES]
                file.write(chunk)
                hasher.update(chunk)
                on_bytes(file.tell())
    hasher.update(_pad(file, unit.offset + unit.bytes))
    return hasher.hexdigest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes, row-major: a view if it lies so in memory, else a copy."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _finished(unit: PlannedUnit, hash_: str) -> Unit:
    return Unit(
        name=unit.name,
        kind=unit.kind,
        part=0,
        offset=unit.offset,
        bytes=unit.bytes,
        hash=hash_,
        layer=unit.layer,
        expert=unit.expert,
    )


def _pad(file: BinaryIO, offset: int) -> bytes:
    """Writes zeros up to `offset`, and returns them."""
    zeros = bytes(offset - file.tell())
    file.write(zeros)
    return zeros
