"""A small network trained on eight of the ten digits; the other two are the near set, noise is the far set."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.detection.detector import Head, head_of


@dataclass(frozen=True)
class Pass:
    images: Tensor
    features: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Digits:
    classifier: Classifier
    head: Head
    train: Pass
    test: Pass
    near: Pass
    far: Pass

    def fit(self, detector):
        return detector.fit_features(self.train.features, self.train.logits, self.train.labels, self.head)

    def score(self, detector, part, fitted=None):
        found = getattr(self, part)
        return detector.score_features(found.features, found.logits, self.fit(detector) if fitted is None else fitted)


@pytest.fixture(scope="session")
def digits() -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(labels)
    known, unknown = (y < 8).nonzero()[:, 0], (y >= 8).nonzero()[:, 0]
    train, test = known[:1000], known[1000:]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[train]), y[train]).backward()
        optimizer.step()
    classifier = Classifier(net, num_classes=8).eval()
    noise = torch.tensor(np.random.default_rng(0).random((300, 1, 8, 8))).float()

    def run(images, targets):
        with torch.no_grad():
            return Pass(images, classifier.features(images), classifier(images), targets)

    passes = {
        "train": run(x[train], y[train]),
        "test": run(x[test], y[test]),
        "near": run(x[unknown], y[unknown]),
        "far": run(noise, torch.zeros(300, dtype=torch.int64)),
    }
    head = head_of(classifier, passes["test"].features, passes["test"].logits)
    return Digits(classifier, head, **passes)
