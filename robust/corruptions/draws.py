"""Random fields for whole batches, quick enough for 224 x 224 colour: 16 bits a number, each sample its own.

A corruption is seen through 8-bit pixels, so 65,536 quantiles of a distribution are finer than what they are added to
(the normal reaches 4.3 standard deviations). The bits are AES in counter mode, the generator of Salmon, Moraes, Dror
and Shaw 2011 ("Parallel random numbers: as easy as 1, 2, 3"): the key is a hash of (seed, purpose), and the block that
is enciphered is (sample id, position). So one call serves a batch, and a sample's bits depend on nothing else in it.
Distributions are looked up in tables that are computed once, in float64.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from robust.randomness import Randomness

LEVELS = 2**16
BLOCK = 16  # bytes that AES enciphers at a time: 8 numbers


def levels(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform integers 0..65535, int32 [N, *shape], on the device of `like`."""
    return torch.from_numpy(_drawn(rng, shape).astype(np.int32)).to(like.device)


def uniform(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform on (0,1), [N, *shape]: the middles of 65,536 intervals."""
    return torch.from_numpy(_drawn(rng, shape)).to(like.device, like.dtype).add_(0.5).div_(LEVELS)


def normal(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal, [N, *shape]: 65,536 equally likely quantiles."""
    drawn = levels(rng, shape, like)
    return _normal_table(like.dtype, like.device).index_select(0, drawn.flatten()).view(drawn.shape)


def angles(rng: Randomness, low: float, high: float) -> list[float]:
    """An angle for each sample, uniform on (low, high)."""
    return [low + (high - low) * (level + 0.5) / LEVELS for level in _drawn(rng, ()).tolist()]


def signs(rng: Randomness, count: int, like: Tensor) -> Tensor:
    """-1 or +1, [N, count]."""
    return 2.0 * rng.integers(2, (count,), like=like).to(like.dtype) - 1


def _drawn(rng: Randomness, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """16 random bits for each number, [N, *shape]."""
    count = int(np.prod(shape))
    blocks = -(-count * 2 // BLOCK)
    counters = np.empty((len(rng.ids), blocks, 2), dtype="<u8")
    counters[..., 0] = np.array([sample % 2**64 for sample in rng.ids], dtype=np.uint64)[:, None]
    counters[..., 1] = np.arange(blocks, dtype=np.uint64)
    key = hashlib.blake2b("\x1f".join((str(rng.seed), *rng.purpose)).encode(), digest_size=16).digest()
    enciphered = np.empty(counters.nbytes + BLOCK - 1, dtype=np.uint8)  # the library asks for room for one block more
    # each block is enciphered by itself, which is what makes a counter into a random number
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    encryptor.update_into(counters.view(np.uint8).reshape(-1).data, enciphered.data)
    words = enciphered[: counters.nbytes].view("<u2").reshape(len(rng.ids), -1)
    return words[:, :count].reshape(len(rng.ids), *shape)


@lru_cache(maxsize=8)
def _normal_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(ndtri((np.arange(LEVELS) + 0.5) / LEVELS)).to(device=device, dtype=dtype)
