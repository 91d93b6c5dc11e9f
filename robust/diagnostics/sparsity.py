"""Adversarial sparsity: how rare successful perturbations are, which accuracy under attack does not tell."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import fooled, input_gradient
from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Subject
from robust.losses import margin
from robust.method import Exact
from robust.randomness import Randomness


class AdversarialSparsity(Diagnostic):
    """The share of pixels an adversary can be denied, at random, before a linf attack of size eps fails.

    Olivier & Raj 2023, "How many perturbations break this model? Evaluating robustness beyond adversarial accuracy",
    arXiv 2207.04129, for linf: draw an order of the pixels, let the adversary move only the first k of them, and bisect
    the smallest k for which PGD succeeds; the sparsity of a sample is the mean of k/D over `draws` orders. 0: any few
    pixels suffice; 1: only the whole image does, or nothing at all.

    Rows: `adversarial-sparsity` (mean over the samples classified correctly, with n), its median over those that PGD
    breaks at all, and the share of these.
    """

    name = "adversarial-sparsity"
    family = "geometry"
    source = "arXiv 2207.04129"

    eps: Exact = Field(default="1/10", validate_default=True, description="linf radius in [0,1] image units")
    draws: int = Field(default=10, ge=1, description="random orders of the pixels for each sample")
    steps: int = Field(default=20, ge=1, description="PGD steps in each attack")
    samples: int = Field(default=100, ge=1, description="test samples looked at, those classified correctly among them")
    halvings: int = Field(default=6, ge=1, description="bisections of k: exact to D / 2^halvings")

    def measure(self, subject: Subject) -> Measured:
        """Rows `{quantity, value, n}`."""
        classifier = subject.classifier
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        images, labels = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
        rng = Randomness.of(subject.seed, ids, self.name)
        with classifier.frozen(), torch.no_grad():
            right = ~fooled(classifier(images), labels)
            images, labels, rng = images[right], labels[right], rng.select(right.cpu())
            orders = [rng.fork("order", draw).permutation(images[0].numel(), like=images) for draw in range(self.draws)]
            shares = torch.stack([self._share(classifier, images, labels, order) for order in orders]).mean(0)
            broken = self._broken(classifier, images, labels, torch.ones_like(images))
        middle = float(shares[broken].median()) if broken.any() else 1.0
        rows = [
            {"quantity": "adversarial-sparsity", "value": float(shares.mean()), "n": len(labels)},
            {"quantity": "adversarial-sparsity-median-broken", "value": middle, "n": int(broken.sum())},
            {"quantity": "broken-with-all-pixels", "value": float(broken.float().mean()), "n": len(labels)},
        ]
        return Measured(rows)

    def _share(self, classifier: Classifier, images: Tensor, labels: Tensor, order: Tensor) -> Tensor:
        """The smallest share [N] of pixels, in this order, with which the attack succeeds; 1 where none does."""
        place = torch.argsort(order, dim=1).view_as(images).to(images.dtype) / images[0].numel()
        low, high = images.new_zeros(len(images)), images.new_ones(len(images))
        for _ in range(self.halvings):
            middle = (low + high) / 2
            broken = self._broken(classifier, images, labels, (place < middle.view(-1, 1, 1, 1)).to(images.dtype))
            low, high = torch.where(broken, low, middle), torch.where(broken, middle, high)
        return high

    def _broken(self, classifier: Classifier, images: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Whether PGD on the margin, moving only pixels under `mask` [N,C,H,W], fools each sample, [N]."""
        eps = float(self.eps) * mask
        lower, upper = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
        moved, broken = images, torch.zeros_like(labels, dtype=torch.bool)
        for _ in range(self.steps):
            gradient, _, logits = input_gradient(classifier, moved, lambda z: margin(z, labels))
            broken |= fooled(logits, labels)
            step = 2.5 * float(self.eps) / self.steps * gradient.sign()
            moved = torch.minimum(torch.maximum(moved + step, lower), upper)
        return broken | fooled(classifier(moved), labels)
