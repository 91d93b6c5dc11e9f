"""Random fields for whole images, quick enough for 224 x 224 colour: 16 bits a number, per sample, from `Randomness`.

A corruption is seen through 8-bit pixels, so 65,536 quantiles of a distribution are finer than what they are added to
(the normal reaches 4.3 standard deviations). The bits come from the same generator that `Randomness` would use for
(seed, sample id, purpose); distributions are looked up in tables that are computed once, in float64.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from robust.randomness import Randomness, generator

LEVELS = 2**16


def levels(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform integers 0..65535, int32 [N, *shape], on the device of `like`."""
    count = int(np.prod(shape))
    drawn = np.empty((len(rng.ids), count), dtype="<u2")
    for row, sample in zip(drawn, rng.ids):
        row[:] = np.frombuffer(generator(rng.seed, sample, *rng.purpose).bytes(2 * count), dtype="<u2")
    return torch.from_numpy(drawn.astype(np.int32)).to(like.device).view(len(drawn), *shape)


def uniform(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform on (0,1), [N, *shape]: the middles of 65,536 intervals."""
    return (levels(rng, shape, like).to(like.dtype) + 0.5) / LEVELS


def normal(rng: Randomness, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal, [N, *shape]: 65,536 equally likely quantiles."""
    drawn = levels(rng, shape, like)
    return _normal_table(like.dtype, like.device).index_select(0, drawn.flatten()).view(drawn.shape)


def signs(rng: Randomness, count: int, like: Tensor) -> Tensor:
    """-1 or +1, [N, count]."""
    return 2.0 * rng.integers(2, (count,), like=like).to(like.dtype) - 1


@lru_cache(maxsize=8)
def _normal_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(ndtri((np.arange(LEVELS) + 0.5) / LEVELS)).to(device=device, dtype=dtype)
