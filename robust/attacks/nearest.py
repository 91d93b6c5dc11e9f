"""What smallest-distance attacks share: keeping the nearest success, and bisection between an image and a success."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.attacks.attack import broadcast, fooled
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import norm_of, steepest


class Nearest:
    """The nearest misclassified image seen so far for each sample; the original until there is one.

    Attributes:
        images: [N,C,H,W]; distance: [N], infinity where nothing was found.
    """

    def __init__(self, origin: Tensor, norm: str) -> None:
        self.origin, self.norm = origin, norm
        self.images = origin.clone()
        self.distance = origin.new_full((len(origin),), torch.inf)

    def offer(self, candidates: Tensor, wrong: Tensor, rows: Tensor | None = None) -> Tensor:
        """Keep the misclassified candidates that are nearer.

        Args:
            candidates: [n,C,H,W]; wrong: [n], whether each is misclassified.
            rows: positions [n] of the candidates in the batch; all of it when None.

        Returns:
            mask [n] of the candidates that were kept.
        """
        rows = torch.arange(len(self.origin), device=candidates.device) if rows is None else rows
        distance = norm_of(candidates - self.origin[rows], self.norm)
        nearer = wrong & (distance < self.distance[rows])
        self.images[rows[nearer]] = candidates[nearer].detach()
        self.distance[rows[nearer]] = distance[nearer]
        return nearer

    @property
    def found(self) -> Tensor:
        """Mask [N] of the samples with a success."""
        return self.distance.isfinite()


def unit_ascent(gradient: Tensor, rng: Randomness) -> Tensor:
    """g / |g|_2 [N,C,H,W]; a random unit direction where the gradient is exactly zero, so that no sample gets stuck."""
    direction = steepest(gradient, "l2")
    flat = ~gradient.flatten(1).any(1)
    if flat.any():
        direction[flat] = steepest(rng.select(flat.cpu()).normal(gradient.shape[1:], like=gradient), "l2")
    return direction


@torch.no_grad()
def wrong_at(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is misclassified, [N]: one forward pass."""
    return fooled(classifier(images), labels)


def bisect(
    classifier: Classifier, origin: Tensor, adversarial: Tensor, labels: Tensor, norm: str, steps: int
) -> Tensor:
    """Move misclassified images toward their originals, halving the uncertainty `steps` times.

    For l2 and l1 the path is the straight line; for linf the perturbation is clipped at a shrinking height, which
    keeps every smaller coordinate (Chen et al. 2020, arXiv 1904.02144). Returns [N,C,H,W], all still
    misclassified if `adversarial` was.
    """
    delta = adversarial - origin
    low, high = origin.new_zeros(len(origin)), origin.new_ones(len(origin))
    for _ in range(steps):
        middle = (low + high) / 2
        wrong = wrong_at(classifier, _shrunk(origin, delta, middle, norm), labels)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    moved = _shrunk(origin, delta, high, norm)
    return torch.where(broadcast(high == 1, origin), adversarial, moved)


def _shrunk(origin: Tensor, delta: Tensor, share: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        bound = broadcast(share * norm_of(delta, "linf"), origin)
        return (origin + torch.minimum(torch.maximum(delta, -bound), bound)).clamp(0.0, 1.0)
    return (origin + broadcast(share, origin) * delta).clamp(0.0, 1.0)
