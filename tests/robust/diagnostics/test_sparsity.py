"""Adversarial sparsity against a linear classifier, where the smallest share of pixels is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Subject
from robust.diagnostics.sparsity import AdversarialSparsity


def subject(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor) -> Subject:
    """Grey images are no uint8 values: the data are given as they are."""
    return Subject(classifier, None, Given(images, labels))


class Given:
    """A split of these images."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def batch(self, rows):
        return self.images[rows], self.labels[rows], torch.arange(len(self.labels))[rows]


def equal_weights(gap: float) -> Classifier:
    """Two classes, 64 pixels of equal weight, margin `gap` at grey 0.5: eps k pixels reach it at k = gap / (2 eps)."""
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.ones(64), -torch.ones(64)]))
        layer.bias.copy_(torch.tensor([-32.0 + gap / 2, 32.0 - gap / 2]))
    return Classifier(nn.Sequential(nn.Flatten(), layer), num_classes=2)


@pytest.mark.parametrize("pixels", [8, 24, 48])
def test_share_of_a_linear_classifier_with_equal_weights(pixels):
    classifier = equal_weights(2 * 0.1 * (pixels - 0.5))
    images, labels = torch.full((5, 1, 8, 8), 0.5), torch.zeros(5, dtype=torch.int64)
    rows = AdversarialSparsity(eps="1/10", draws=2).measure(subject(classifier, images, labels)).rows
    value = {row["quantity"]: row["value"] for row in rows}
    assert value["adversarial-sparsity"] == pytest.approx(pixels / 64, abs=1 / 64)
    assert value["broken-with-all-pixels"] == 1


def test_an_unbreakable_sample_has_share_one():
    images, labels = torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, dtype=torch.int64)
    rows = AdversarialSparsity(draws=1).measure(subject(equal_weights(100.0), images, labels)).rows
    value = {row["quantity"]: row["value"] for row in rows}
    assert value["adversarial-sparsity"] == 1
    assert value["broken-with-all-pixels"] == 0
