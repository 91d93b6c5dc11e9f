"""Outliers moved until a score takes them for data: scores rise, inside the ball, to a linear score's best."""

import pytest
import torch

from robust.classifier import Classifier
from robust.detection.attacked import ScoreAttack
from robust.detection.energy import Energy
from robust.detection.knn import KNN
from robust.detection.mahalanobis import Mahalanobis
from robust.randomness import Randomness


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return Classifier(module, num_classes=3).requires_grad_(False)


@pytest.mark.parametrize("detector", [Energy(), Mahalanobis(), KNN()], ids=lambda d: d.name)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_scores_rise_inside_the_ball(classifier, detector, norm):
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    features, logits = classifier.features(images), classifier(images)
    fitted = detector.fit_features(features, logits, logits.argmax(1))
    outside = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(2)) * 0.2
    attack = ScoreAttack(threat={"norm": norm, "eps": "1/5"}, steps=10)
    before = detector.score_features(classifier.features(outside), classifier(outside), fitted)
    moved, after = attack.raised(classifier, detector, fitted, outside, Randomness.of(0, range(12)))
    assert attack.threat.contains(moved, outside).all()
    assert (after >= before).all()
    assert after.mean() > before.mean()
    again = detector.score_features(classifier.features(moved), classifier(moved), fitted)
    torch.testing.assert_close(after, again)


def test_the_energy_of_one_linear_unit_ends_in_the_corner_of_the_ball():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    classifier = Classifier(module, num_classes=2).requires_grad_(False)
    image = torch.full((1, 1, 2, 2), 0.5)
    attack = ScoreAttack(threat={"norm": "linf", "eps": "1/10"}, steps=20)
    moved, _ = attack.raised(classifier, Energy(), {}, image, Randomness.of(0, [0]))
    torch.testing.assert_close(moved, image + 0.1 * torch.tensor([1.0, -1.0, 1.0, 1.0]).view(1, 1, 2, 2))
