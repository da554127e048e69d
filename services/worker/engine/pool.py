"""Where keys and values lie: the geometry of a model's KV, and one byte buffer seen layer by layer.
Who owns which block is decided in blocks.py."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.worker.engine.errors import PoolTooSmall
from services.worker.engine.reservation import Reservation


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's KV heads; keys and values may differ in width (latent attention)."""

    heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class KVSpec:
    """What one token leaves behind in every layer, and how many tokens make a block."""

    layers: tuple[LayerKV, ...]
    dtype: torch.dtype
    block_tokens: int = 16

    @property
    def token_bytes(self) -> int:
        """Bytes of one token over all layers."""
        return sum(kv.heads * (kv.k_dim + kv.v_dim) for kv in self.layers) * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return self.token_bytes * self.block_tokens

    @property
    def layer_token_bytes(self) -> int:
        """Bytes of one token in the widest layer."""
        return max(kv.heads * (kv.k_dim + kv.v_dim) for kv in self.layers) * self.dtype.itemsize

    def layer_block_bytes(self, layer: int) -> int:
        """Bytes of one block of one layer."""
        kv = self.layers[layer]
        return kv.heads * (kv.k_dim + kv.v_dim) * self.dtype.itemsize * self.block_tokens

    def fingerprint(self) -> bytes:
        """Equal for specs whose blocks are interchangeable."""
        return hashlib.sha256(repr((self.layers, str(self.dtype), self.block_tokens)).encode()).digest()


@dataclass(frozen=True, slots=True)
class LayerPool:
    """One layer's slots. `k` [slots, heads, k_dim] is for writing and gathering; `k_run` [1, heads, slots, k_dim]
    is the same memory turned so that a run of slots is a ready attention operand. So for `v`."""

    heads: int
    k: Tensor
    v: Tensor
    k_run: Tensor
    v_run: Tensor


class KVPool:
    """`blocks` blocks of KV in one uint8 buffer, layer-major: a layer's keys of all blocks, then its values. On the
    host a block costs memory from when it is written until it is given back; elsewhere always."""

    def __init__(self, spec: KVSpec, blocks: int, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        self.blocks = blocks
        count_bytes, on_host = blocks * spec.block_bytes, torch.device(device).type == "cpu"
        self._reservation = Reservation(count_bytes) if on_host else None
        own = self._reservation
        self.buffer = own.buffer if own else torch.empty(count_bytes, dtype=torch.uint8, device=device)
        self.layers: list[LayerPool] = []
        self._halves: list[tuple[Tensor, Tensor]] = []  # each layer's keys and values as bytes [blocks, bytes]
        start = 0
        for kv in spec.layers:
            k = self._view(start, kv.heads, kv.k_dim)
            v = self._view(start + k.nbytes, kv.heads, kv.v_dim)
            self._halves.append((self._bytes(start, k.nbytes), self._bytes(start + k.nbytes, v.nbytes)))
            start += k.nbytes + v.nbytes
            self.layers.append(LayerPool(kv.heads, k, v, k.transpose(0, 1)[None], v.transpose(0, 1)[None]))

    @property
    def halves(self) -> list[Tensor]:
        """Bytes [blocks, bytes] of each layer's keys, then of its values: the pool's own memory."""
        return list(itertools.chain.from_iterable(self._halves))

    def read(self, layer: int, blocks: Sequence[int]) -> Tensor:
        """A layer's bytes [len(blocks), bytes] of some blocks, keys before values; a copy, on the pool's device."""
        index = torch.tensor(blocks, dtype=torch.long).to(self.buffer.device)
        k, v = self._halves[layer]
        width = k.shape[1]
        data = torch.empty(len(blocks), width + v.shape[1], dtype=torch.uint8, device=self.buffer.device)
        torch.index_select(k, 0, index, out=data[:, :width])
        torch.index_select(v, 0, index, out=data[:, width:])
        return data

    def write(self, layer: int, blocks: Sequence[int], data: Tensor) -> None:
        """Puts what `read` gave, here or on another worker, into these blocks."""
        index = torch.tensor(blocks, dtype=torch.long).to(self.buffer.device)
        k, v = self._halves[layer]
        width, data = k.shape[1], data.to(self.buffer.device)
        _put(k, index, data[:, :width])
        _put(v, index, data[:, width:])

    def read_all(self, blocks: Sequence[int]) -> Tensor:
        """Whole blocks [len(blocks), block_bytes] in host memory, layer by layer."""
        return torch.cat([self.read(layer, blocks) for layer in range(len(self.layers))], 1).cpu()

    def write_all(self, blocks: Sequence[int], data: Tensor) -> None:
        """Puts what `read_all` gave into these blocks."""
        start = 0
        for layer, (k, v) in enumerate(self._halves):
            end = start + k.shape[1] + v.shape[1]
            self.write(layer, blocks, data[:, start:end])
            start = end

    def give_back(self, blocks: Sequence[int]) -> None:
        """Free the memory of blocks that are out of use; elsewhere than on the host it stays."""
        if self._reservation:
            for first, end in _runs(sorted(blocks)):
                for half in self.halves:
                    start, width = int(half.storage_offset()), half.shape[1]
                    self._reservation.give_back(start + first * width, start + end * width)

    def _bytes(self, start: int, count: int) -> Tensor:
        return self.buffer[start : start + count].view(self.blocks, -1)

    def _view(self, start: int, heads: int, dim: int) -> Tensor:
        slots = self.blocks * self.spec.block_tokens
        end = start + slots * heads * dim * self.spec.dtype.itemsize
        return self.buffer[start:end].view(self.spec.dtype).view(slots, heads, dim)


def _put(rows: Tensor, index: Tensor, data: Tensor) -> None:
    """Eight bytes at a time where they lie so: index_copy_ takes as long for one as for eight."""
    if all(one.shape[1] % 8 == one.stride(0) % 8 == one.storage_offset() % 8 == 0 for one in (rows, data)):
        rows, data = rows.view(torch.int64), data.view(torch.int64)
    rows.index_copy_(0, index, data)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as runs: first, and one past the last."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs


def blocks_in(kv_bytes: int, spec: KVSpec) -> int:
    """How many blocks `kv_bytes` hold; PoolTooSmall if none."""
    if kv_bytes < spec.block_bytes:
        raise PoolTooSmall(f"{kv_bytes} bytes of KV hold no block; this model needs at least {spec.block_bytes}")
    return kv_bytes // spec.block_bytes
