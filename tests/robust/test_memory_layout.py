"""The channels-last copy: only where it helps and agrees, and never what decides a verdict."""

import pytest
import torch
from torch import nn

from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.judging import judge
from robust.memory_layout import channels_last_copy


class Viewing(nn.Module):
    """Reshapes by `view`, which channels-last features refuse."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Linear(64, 3)

    def forward(self, images):
        return self.head(self.pool(self.conv(images)).view(len(images), -1))


def pooled(*extra, dtype=torch.float32):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *extra, nn.Flatten(), nn.Linear(64, 3)]
    return Classifier(nn.Sequential(*layers).to(dtype), num_classes=3).eval().requires_grad_(False)


IMAGES = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_pooling_network_gets_a_copy_that_computes_the_same():
    classifier = pooled()
    twin = channels_last_copy(classifier, IMAGES)
    assert twin is not None
    assert twin is not classifier
    torch.testing.assert_close(twin(IMAGES), classifier(IMAGES))
    assert twin.module[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "classifier",
    [
        Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))),
        pooled(dtype=torch.float64),
        Classifier(lambda images: images.flatten(1)),
        Classifier(Viewing()),
    ],
    ids=["no pooling", "float64", "a function", "view"],
)
def test_others_are_left_as_they_are(classifier):
    assert channels_last_copy(classifier, IMAGES) is None


def test_verdicts_are_those_of_the_network_itself():
    classifier = pooled()
    labels = classifier(IMAGES).argmax(1)
    judged = judge(classifier, IMAGES, labels, torch.arange(40), PGD(eps="1/10", steps=10), seed=0)
    wrong = classifier(judged.images).argmax(1) != labels
    assert (judged.rows["success"].to_numpy() == wrong.numpy()).all()
    assert 0 < wrong.float().mean() < 1
    assert (judged.rows["forward"].to_numpy() > 0).all()


def test_an_image_that_fools_the_copy_alone_is_searched_again(monkeypatch):
    classifier = pooled()
    labels = classifier(IMAGES).argmax(1)

    def other(classifier, images):  # a copy that is another network: everything it is fooled by must be settled
        twin = pooled()
        with torch.no_grad():
            twin.module[-1].bias.add_(torch.tensor([0.0, 5.0, 0.0]))
        return twin

    plain = judge(classifier, IMAGES, labels, torch.arange(40), PGD(eps="1/10", steps=10), seed=0)
    monkeypatch.setattr("robust.judging.channels_last_copy", other)
    settled = judge(classifier, IMAGES, labels, torch.arange(40), PGD(eps="1/10", steps=10), seed=0)
    fell = plain.rows["success"].to_numpy()
    wrong = classifier(settled.images).argmax(1) != labels
    assert (settled.rows["success"].to_numpy() == wrong.numpy()).all()
    assert (settled.rows["success"].to_numpy() >= fell).mean() > 0.6
