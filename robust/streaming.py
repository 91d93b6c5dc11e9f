"""Evaluation of a whole data set without a float copy of it: images become floats shard by shard.

Memory grows with the batch and the shard, not with the set; what is kept of a sample is its ledger row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.evaluation import Ledger, evaluate_shards
from robust.judging import Evaluation


def evaluate_dataset(
    classifier: Classifier,
    dataset: Dataset,
    evaluations: Sequence[Evaluation],
    *,
    seed: int = 0,
    model: str = "model",
    batch_size: int = 250,
    shard_size: int = 1000,
    until: float | None = None,
    certify_first: bool = True,
) -> Ledger:
    """`robust.evaluation.evaluate` on a `Dataset`, whose ids key the randomness; the rows are the same, bit for bit.

    Args:
        classifier: images in [0,1] -> logits.
        dataset: labelled; read in its own order, `shard_size` samples at a time.
        evaluations, seed, model, batch_size, until, certify_first: as for `evaluate`.

    Raises:
        ValueError: if the set has no labels, and whatever `judge` refuses.
    """
    if not dataset.labelled:
        raise ValueError(f"{dataset.name} has no labels, so nothing on it can be right or wrong; it can only be scored")
    return evaluate_shards(
        classifier,
        _shards(dataset, shard_size),
        evaluations,
        asked=len(dataset),
        seed=seed,
        model=model,
        batch_size=batch_size,
        until=until,
        certify_first=certify_first,
    )


def _shards(dataset: Dataset, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for rows in torch.arange(len(dataset)).split(size):
        yield dataset.batch(rows.numpy())
