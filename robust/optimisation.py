"""What `Training` says about the optimiser, as two functions: the optimiser itself, and the learning rate of a step."""

from __future__ import annotations

import math

import torch

from robust.classifier import Classifier
from robust.objectives.objective import Training


def make_optimizer(classifier: Classifier, training: Training) -> torch.optim.Optimizer:
    """The optimiser that `training` names, over all weights that ask for gradients."""
    weights = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            weights,
            training.lr,
            training.momentum,
            weight_decay=training.weight_decay,
            nesterov=training.momentum > 0,
        )
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return adam(weights, training.lr, weight_decay=training.weight_decay)


def learning_rate(training: Training, step: int, total: int, per_epoch: int) -> float:
    """The learning rate of a step: a function of the step alone, so nothing of it needs saving.

    Linear from 0 over the first `warmup` of all steps (one-cycle: over 0.3 where warmup is 0), then constant, or
    cosine (`cycles` times over) or linear (one-cycle) to 0, or lr gamma^k after k milestones.
    """
    rise = training.warmup or (0.3 if training.schedule == "one-cycle" else 0.0)
    rising = rise * total
    if step < rising:
        return training.lr * (step + 1) / (math.floor(rising) + 1)
    left = (step - rising) / max(1.0, total - rising)
    if training.schedule == "cosine":
        left = left * training.cycles % 1.0
        return training.lr * (1 + math.cos(math.pi * left)) / 2
    if training.schedule == "one-cycle":
        return training.lr * (1 - left)
    if training.schedule == "multistep":
        return training.lr * training.gamma ** sum(step // per_epoch >= after for after in training.milestones)
    return training.lr
