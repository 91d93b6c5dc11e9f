"""Training batches: a dataset in a seeded order, epoch by epoch, floats made per batch, augmented per sample.

Which samples stand in batch `step` is a pure function of (seed, step), so a resumed run needs no sampler state beyond
the step number. Sets that fit are held once as uint8 on the training device; others are read by the batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robust.datasets.dataset import Dataset
from robust.objectives.objective import Augment, Batch
from robust.randomness import Randomness, generator
from robust.ranks import ALONE, Ranks

RESIDENT_BYTES = 2 * 1024**3  # a set below this is held on the training device


class Batches:
    """The batches of a training run.

    Args:
        dataset: the training split.
        batch_size: images a batch; capped at the size of the set. What is left of an epoch's order after the last
            full batch is left out of that epoch, so every batch has one size and batch statistics one meaning.
        epochs: how often the set is gone through.
        seed: keys the order and all per-sample draws.
        augment: `none`, `crop` (shift by up to 1/8 of the side, zero padding) or `crop-flip` (also left-right).
        device, dtype: of the images handed out.
        ranks: of each batch, this rank's part is made and handed out. Order and draws are those of the whole.

    `attempt` counts how often a diverged training has gone back; order and draws of each attempt are its own.
    """

    attempt: int = 0

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        epochs: int,
        seed: int,
        augment: Augment,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
    ) -> None:
        self.dataset, self.seed, self.augment = dataset, seed, augment
        self.device, self.dtype, self.ranks = device, dtype, ranks
        self.batch_size = min(batch_size, len(dataset))
        self.per_epoch = len(dataset) // self.batch_size
        self.total = self.per_epoch * epochs
        resident = len(dataset) * math.prod(dataset.shape) <= RESIDENT_BYTES
        self._pixels = torch.from_numpy(dataset.pixels[np.arange(len(dataset))]).to(device) if resident else None
        self._order: tuple[tuple[int, int], np.ndarray] = ((-1, 0), np.zeros(0, np.int64))

    def batch(self, step: int) -> Batch:
        """The batch of optimiser step `step`, 0 <= step < total."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order[0] != (epoch, self.attempt):
            order = generator(self.seed, "order", *self._key(epoch)).permutation(len(self.dataset))
            self._order = ((epoch, self.attempt), order)
        rows = self._order[1][position * self.batch_size : (position + 1) * self.batch_size]
        rows = rows[self.ranks.part(self.batch_size)]
        ids = torch.from_numpy(self.dataset.ids[rows])
        rng = Randomness.of(self.seed, ids, "train", *self._key(epoch))
        images = augmented(self._images(rows), self.augment, rng.fork("augment"))
        labels = torch.from_numpy(self.dataset.labels[rows]).to(self.device)
        return Batch(
            images, labels, ids, rng, step / self.total, step, epoch, lambda purpose: self._independent(step, purpose)
        )

    def _independent(self, step: int, purpose: str) -> Tensor:
        """A batch of images drawn with replacement for this step and purpose."""
        draws = generator(self.seed, "independent", purpose, step, self.attempt)
        rows = draws.integers(len(self.dataset), size=self.batch_size)
        # keyed by place: a sample drawn twice is augmented twice
        rng = Randomness.of(self.seed, range(self.batch_size), "independent", purpose, step, self.attempt)
        return augmented(self._images(rows), self.augment, rng.fork("augment"))

    def _key(self, epoch: int) -> tuple[int, ...]:
        return (epoch, self.attempt) if self.attempt else (epoch,)

    def _images(self, rows: np.ndarray) -> Tensor:
        if self._pixels is None:
            return self.dataset.batch(rows)[0].to(self.device, self.dtype)
        return self._pixels[torch.from_numpy(rows).to(self.device)].to(self.dtype).div_(255)


def augmented(images: Tensor, augment: Augment, rng: Randomness) -> Tensor:
    """Randomly shifted (and mirrored) images [N,C,H,W], each by its own draws."""
    if augment == "none":
        return images
    count, _, height, width = images.shape
    reach = max(1, min(height, width) // 8)
    shift = rng.fork("shift").integers(2 * reach + 1, (2,), like=images)
    rows = torch.arange(height, device=images.device) + shift[:, :1]
    columns = torch.arange(width, device=images.device) + shift[:, 1:]
    if augment == "crop-flip":
        mirrored = rng.fork("flip").integers(2, (1,), like=images) == 1
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, [reach] * 4)
    which = torch.arange(count, device=images.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()
