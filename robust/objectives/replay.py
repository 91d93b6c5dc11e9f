"""The replay buffer of persistent Langevin chains, and where chains begin: plain tensors in the objective's state.

A chain goes on from where an earlier step left it (persistent contrastive divergence), except that now and then one
begins anew. The buffer stands in the checkpoint, so a resumed training meets the chains that it left.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from robust.datasets.dataset import Dataset
from robust.randomness import generator

Start = Literal["uniform", "class-gaussian"]

RANK = 64  # directions of each class's covariance
SAMPLES = 512  # images that a class's Gaussian is fitted to


def stream(seed: int, *purpose: object, device: torch.device) -> torch.Generator:
    """A torch generator of its own for (seed, purpose): chains take too many numbers to draw them image by image."""
    return torch.Generator(device).manual_seed(int(generator(seed, *purpose).integers(2**62)))


def normals(draws: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of the shape, type and device of `like`."""
    return torch.randn(like.shape, generator=draws, dtype=like.dtype, device=like.device)


def class_gaussians(train_set: Dataset, like: Tensor) -> dict[str, Tensor]:
    """Mean and leading directions of each class's images: `means` [K,D] and `factors` [K,R,D].

    mean + z factors with z ~ N(0, I) has the covariance of up to 512 images, cut to its 64 leading directions.
    """
    means, factors = [], []
    size = int(np.prod(train_set.shape))
    for label in range(len(train_set.classes)):
        rows = np.flatnonzero(train_set.labels == label)[:SAMPLES]
        flat = train_set.batch(rows)[0].flatten(1).double() if len(rows) else torch.full((1, size), 0.5).double()
        mean = flat.mean(0)
        _, lengths, directions = torch.linalg.svd((flat - mean) / len(flat) ** 0.5, full_matrices=False)
        factor = torch.zeros(RANK, size, dtype=torch.float64)
        kept = min(RANK, len(lengths))
        factor[:kept] = lengths[:kept, None] * directions[:kept]
        means.append(mean)
        factors.append(factor)
    return {"means": torch.stack(means).to(like), "factors": torch.stack(factors).to(like)}


def fresh(state: dict[str, Any], classes: Tensor, draws: torch.Generator, shape: torch.Size) -> Tensor:
    """New starting points [n,C,H,W] in [0,1]: class Gaussians where the state has them, else uniform noise."""
    buffer: Tensor = state["buffer"]
    if "means" not in state:
        return torch.rand((len(classes), *shape), generator=draws, dtype=buffer.dtype, device=buffer.device)
    factors = state["factors"][classes]
    z = torch.randn(factors.shape[:2], generator=draws, dtype=buffer.dtype, device=buffer.device)
    drawn = state["means"][classes] + torch.einsum("nr,nrd->nd", z, factors)
    return drawn.view(-1, *shape).clamp(0, 1)
