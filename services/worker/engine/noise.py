"""Noise that decides between tokens: a function of a seed, a position and a token, and of nothing else."""

import hashlib
import struct
from collections.abc import Sequence

import torch
from torch import Tensor


def gumbel(keys: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
    """Gumbel noise [len(keys), len(tokens)] float32, a function of each (seed, position) and the token's id only.

    Counter-based: the id is mixed with a 64-bit digest of the key by two rounds of 32-bit finalisers
    (MurmurHash3's, and Ellis' lowbias32), which torch computes in place on int32.
    """
    packed = [struct.unpack("<ii", hashlib.blake2b(struct.pack("<QQ", *key), digest_size=8).digest()) for key in keys]
    key = torch.tensor(packed, dtype=torch.int32, device=tokens.device)
    x = tokens.to(torch.int32).mul(-1640531527) + key[:, :1]
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(-2048144789)
    x.bitwise_xor_((x >> 13) & 0x7FFFF).mul_(-1028477387)
    x.bitwise_xor_((x >> 16) & 0xFFFF).bitwise_xor_(key[:, 1:])
    x.bitwise_xor_((x >> 16) & 0xFFFF).mul_(2146121005)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).mul_(-2073254261)
    x.bitwise_xor_((x >> 15) & 0x1FFFF).bitwise_and_(0x7FFFFFFF)
    uniform = x.float().add_(0.5).mul_(2.0**-31).clamp_(max=1.0 - 2.0**-24)  # finest near 0: the winners' end
    return uniform.neg_().log1p_().neg_().log_().neg_()
