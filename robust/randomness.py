"""Randomness that belongs to a sample: every draw is a pure function of (seed, sample id, purpose).

So a sample meets the same random start, noise or query sequence whatever batch, shard, order or runner it travels
in, and an interrupted run continues with the draws it would have had. The generator is numpy's counter-based Philox,
keyed by a hash of the triple; draws are made in float64 on the CPU and then cast, so that devices agree too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """A stream of its own for (seed, purpose): for choices that belong to a run and not to one sample."""
    key = hashlib.blake2b("\x1f".join(map(str, (seed, *purpose))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


@dataclass(frozen=True)
class Randomness:
    """Random draws for a batch of samples.

    Args:
        seed: the study's seed, 0 <= seed < 2**53.
        ids: sample ids [N]; two rows with one id get the same draws.
        purpose: what the draws are for: attack name, then restart, target, step...

    Each method returns a fresh tensor [N, *shape] and is stateless: the same call gives the same numbers. Name what a
    draw is for with `fork`, as in `rng.fork("start", restart).uniform(images.shape[1:])`.
    """

    seed: int
    ids: tuple[int, ...]
    purpose: tuple[str, ...] = ()

    @classmethod
    def of(cls, seed: int, ids: Sequence[int] | Tensor | np.ndarray, *purpose: object) -> Randomness:
        """Randomness for these sample ids."""
        plain = ids if isinstance(ids, Sequence) else ids.tolist()  # at once: a tensor's elements are slow one by one
        return cls(int(seed), tuple(map(int, plain)), tuple(map(str, purpose)))

    def fork(self, *purpose: object) -> Randomness:
        """The same samples, another purpose: independent draws."""
        return Randomness(self.seed, self.ids, (*self.purpose, *map(str, purpose)))

    def select(self, rows: Tensor | Sequence[int]) -> Randomness:
        """The draws of some rows: a boolean mask [N] or a list of positions."""
        if isinstance(rows, Tensor):
            rows = rows.nonzero().flatten().tolist() if rows.dtype == torch.bool else rows.tolist()
        return Randomness(self.seed, tuple(self.ids[i] for i in rows), self.purpose)

    def uniform(
        self, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0, like: Tensor | None = None
    ) -> Tensor:
        """Uniform on [low, high), [N, *shape]."""
        return self._draw(lambda g: low + (high - low) * g.random(tuple(shape)), like)

    def normal(self, shape: Sequence[int] = (), like: Tensor | None = None) -> Tensor:
        """Standard normal, [N, *shape]."""
        return self._draw(lambda g: g.standard_normal(tuple(shape)), like)

    def laplace(self, shape: Sequence[int] = (), like: Tensor | None = None) -> Tensor:
        """Standard Laplace, [N, *shape]: the direction of a uniform point in the l1 ball."""
        return self._draw(lambda g: g.laplace(size=tuple(shape)), like)

    def integers(self, high: int, shape: Sequence[int] = (), like: Tensor | None = None) -> Tensor:
        """Integers in [0, high), int64, [N, *shape]."""
        device = None if like is None else like.device
        return torch.as_tensor(self._rows(lambda g: g.integers(0, high, tuple(shape))), device=device)

    def permutation(self, n: int, like: Tensor | None = None) -> Tensor:
        """A permutation of 0..n-1 for each sample, int64, [N, n]."""
        device = None if like is None else like.device
        return torch.as_tensor(self._rows(lambda g: g.permutation(n)), device=device)

    def _draw(self, draw: Callable[[np.random.Generator], Any], like: Tensor | None) -> Tensor:
        values = torch.as_tensor(self._rows(draw), dtype=torch.float64)
        if like is None:
            return values.to(torch.get_default_dtype())
        return values.to(device=like.device, dtype=like.dtype)

    def _rows(self, draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
        if not self.ids:  # an empty batch still has a shape
            return np.asarray(draw(generator(self.seed, 0)))[None][:0]
        return np.stack([np.asarray(draw(generator(self.seed, i, *self.purpose))) for i in self.ids])
