"""The twelve usual mistakes, each made on purpose around a network that is right, and each named with its remedy."""

import numpy as np
import pytest
import torch
from torch import nn

from robust.datasets.dataset import Dataset
from robust.foreign.findings import MISTAKES
from robust.foreign.hypotheses import Declared
from robust.foreign.loaded import ForeignError, Loaded
from robust.foreign.normalisations import CENTRED, COLOUR, GREY, IMAGENET
from robust.foreign.preparation import prepared
from robust.foreign.probe import QUERIED, examine

MEAN, STD = (0.1307,), (0.3081,)


def named(module, data, *mistakes, declared=Declared(), least=0.9, notes=()):  # noqa: B008
    found = examine(Loaded(module.eval() if not notes else module, "a test", notes=notes), data, declared)
    assert [f.mistake for f in found.findings] == list(mistakes), [str(f) for f in found.findings]
    assert all(f.mistake in MISTAKES and f.remedy and f.evidence for f in found.findings)
    assert found.accuracy > least
    images, labels, _ = data.batch(slice(0, 100))
    if found.preparation.shape == data.shape:
        right = prepared(module, found.preparation)(images).argmax(1) == labels
        assert float(right.float().mean()) > least
    return found


def test_a_network_that_is_right_gets_no_finding(net, digits, colour_net, colours):
    found = named(net, digits)
    assert found.preparation.std == ()
    assert found.access == "gradient"
    assert found.low < found.accuracy < found.high
    named(colour_net, colours)


def test_declared_rightly_there_is_no_finding(net, digits, around):
    wants = around(lambda x: x * 0.2 + 0.4, net)
    found = named(wants, digits, declared=Declared(mean=(0.4,), std=(0.2,)))
    assert found.preparation.std == (0.2,)


def test_normalised_twice_by_the_user(net, digits):
    found = named(net, digits, "normalised twice", declared=Declared(mean=(0.9,), std=(0.05,)))
    assert found.preparation.std == ()
    assert "leave out --mean" in found.findings[0].remedy
    assert found.findings[0].without < found.findings[0].accuracy


def test_normalised_twice_inside(colour_net, colours, around):
    # the network takes images and normalises them twice: it was trained on those normalised once
    mean, std = torch.tensor(IMAGENET.mean).view(1, 3, 1, 1), torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    # anything beyond the range that it was trained on is folded back, and looks like nothing it knows
    named(around(lambda x: ((x - mean) / std).remainder(1.1), colour_net), colours, "normalised twice")


def test_unnormalised(colour_net, colours, around):
    mean, std = torch.tensor(IMAGENET.mean).view(1, 3, 1, 1), torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    found = named(around(lambda x: x * std + mean, colour_net), colours, "unnormalised")
    assert "--mean" in found.findings[0].remedy
    assert found.preparation.std in {n.std for n in COLOUR}


@pytest.mark.parametrize("trained_with", [*GREY, CENTRED], ids=lambda n: n.name)
def test_among_neighbouring_normalisations_the_one_that_is_surest_is_taken(net, digits, around, trained_with):
    (mean,), (std,) = trained_with.mean, trained_with.std
    found = named(around(lambda x: x * std + mean, net), digits, "unnormalised")
    assert found.preparation.mean[0] == pytest.approx(mean, abs=0.03)
    assert found.preparation.std[0] == pytest.approx(std, abs=0.03)


def test_blue_first(colour_net, colours, around):
    assert named(around(lambda x: x.flip(1), colour_net), colours, "BGR").preparation.bgr


def test_pixels_from_0_to_255(net, digits, around):
    found = named(around(lambda x: x / 255, net), digits, "0-255")
    assert found.preparation.std == (1 / 255,)


@pytest.mark.parametrize("removable", [True, False])
def test_softmax_already_applied(net, digits, around, removable):
    module = nn.Sequential(net, nn.Softmax(dim=1)) if removable else around(lambda x: x, net, lambda z: z.softmax(1))
    found = named(module, digits, "softmax applied")
    images, _, _ = digits.batch(slice(0, 50))
    difference = prepared(module, found.preparation)(images) - net(images)
    spread = difference - difference[:, :1]  # logits are known up to a constant a row
    assert float(spread.abs().median()) < 1e-3


def test_softmax_applied_twice(net, digits, around):
    module = around(lambda x: x, net, lambda z: z.softmax(1).softmax(1))
    found = named(module, digits, "softmax applied")
    assert found.preparation.answer == "softmax twice"
    images, _, _ = digits.batch(slice(0, 50))
    again = prepared(module, found.preparation)(images).softmax(1)
    assert torch.allclose(again, net(images).softmax(1), atol=1e-4)


@pytest.mark.parametrize(
    ("after", "answer"),
    [
        (lambda z: z.log_softmax(1), "log-softmax"),
        (lambda z: z.softmax(1).log_softmax(1), "log-softmax of softmax"),
    ],
)
def test_log_softmax_taken(net, digits, around, after, answer):
    module = around(lambda x: x, net, after)
    found = named(module, digits, "log-softmax applied")
    assert found.preparation.answer == answer
    images, _, _ = digits.batch(slice(0, 50))
    again = prepared(module, found.preparation)(images).softmax(1)
    assert torch.allclose(again, net(images).softmax(1), atol=1e-4)


def test_train_mode(net, digits):
    class Forgetful(nn.Module):  # dropout that no eval() reaches, as in an archive exported in train mode
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(nn.functional.dropout(x, 0.1, training=True))

    found = named(Forgetful(), digits, "train mode", least=0.8)
    assert "each time" in found.findings[0].evidence
    named(net, digits, "train mode", notes=("train mode",))


def test_batch_statistics_show(digits, net, around):
    module = around(lambda x: (x - x.mean(0, keepdim=True)) / 4 + 0.35, nn.Sequential(nn.Conv2d(1, 1, 1), net))
    nn.init.ones_(module.network[0].weight)
    nn.init.zeros_(module.network[0].bias)
    found = examine(Loaded(module.eval(), "a test"), digits)
    assert found.findings[0].mistake == "train mode"
    assert "batch" in found.findings[0].evidence


def test_wrong_class_order(net, digits, around):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    found = named(around(lambda x: x, net, lambda z: z[:, order]), digits, "class order")
    assert [order[c] for c in found.preparation.columns] == list(range(10))
    flag = found.findings[0].remedy.rpartition(" ")[2].split(",")
    assert flag == [str(k) for k in order]
    again = named(
        around(lambda x: x, net, lambda z: z[:, order]), digits, declared=Declared(classes=tuple(map(str, order)))
    )
    assert again.preparation.columns == found.preparation.columns


def test_off_by_one(net, digits, around):
    found = named(around(lambda x: x, net, lambda z: nn.functional.pad(z, (1, 0), value=-9.0)), digits, "missing class")
    assert found.preparation.columns == tuple(range(1, 11))
    assert "off by one" in found.findings[0].evidence
    found = named(around(lambda x: x, net, lambda z: z.roll(1, 1)), digits, "missing class")
    assert found.preparation.columns == (*range(1, 10), 0)


def test_a_class_that_the_network_lacks_is_named(net, digits, around):
    with pytest.raises(ForeignError, match=r"missing class.*9 outputs.*10 classes.*answers to 3"):
        examine(Loaded(around(lambda x: x, net, lambda z: z[:, [0, 1, 2, 4, 5, 6, 7, 8, 9]]), "a test"), digits)


def test_wrong_size_that_the_network_refuses(net, digits):
    large = Dataset("large", "test", np.repeat(np.repeat(digits.pixels[np.arange(360)], 3, 2), 3, 3), digits.labels,
                    digits.ids, digits.classes, "large")  # fmt: skip
    found = named(net, large, "image size", least=0.85)
    assert found.preparation.shape == (1, 8, 8)
    assert "24 x 24" in found.findings[0].evidence


def test_wrong_size_that_the_network_takes(net, digits, around):
    def only_large(x):  # sees a digit at 32 x 32 and takes any size
        return nn.functional.adaptive_avg_pool2d(nn.functional.pad(x[..., ::4, ::4], (0, 8, 0, 8))[..., :8, :8], 8)

    found = named(around(only_large, net), digits, "image size", least=0.6)
    assert found.preparation.shape[1:] in {(32, 32), (28, 28)}


def test_height_width_channels(net, digits, colour_net, colours, around):
    found = named(around(lambda x: x.permute(0, 3, 1, 2), net), digits, "HWC")
    assert found.preparation.channels_last
    named(around(lambda x: x.permute(0, 3, 1, 2), colour_net), colours, "HWC")


def test_grey_for_colour(net, digits, colours, around):
    found = named(around(three_channels, net), digits, "grey for colour")
    assert found.preparation.shape == (3, 8, 8)
    found = examine(Loaded(net, "a test"), in_colour(digits))
    assert [f.mistake for f in found.findings] == ["grey for colour"]
    assert found.preparation.shape == (1, 8, 8)


def test_trained_on_grey_but_given_colour(digits, net, around):
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

    def suspicious(x):  # at home only where all three channels agree
        disagreement = (x - x.mean(1, keepdim=True)).abs().sum(1, keepdim=True)
        return (x * luma).sum(1, keepdim=True) * (disagreement < 1e-3)

    found = named(around(suspicious, net), in_colour(digits, (0.7, 0.2, 0.5)), "grey for colour", least=0.7)
    assert found.preparation.grey


def in_colour(digits, shares=(1.0, 1.0, 1.0)):
    pixels = digits.pixels[np.arange(360)] * np.array(shares).reshape(1, 3, 1, 1)
    return Dataset("coloured", "test", pixels.astype(np.uint8), digits.labels, digits.ids, digits.classes, "coloured")


def three_channels(x):
    if x.shape[1] != 3:
        raise RuntimeError(f"expected 3 channels, got {x.shape[1]}")
    return x[:, :1]


@pytest.mark.parametrize("outputs", [9, 10, 11, 1000])
def test_an_untrained_network_is_said_to_guess_and_nothing_is_said_of_its_classes(digits, outputs):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        untrained = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, outputs))
    with pytest.raises(ForeignError, match=r"no better than guessing.*always naming the most frequent") as refused:
        examine(Loaded(untrained, "a test"), digits)
    assert "class order" not in str(refused.value)
    assert "missing class" not in str(refused.value)


def test_functions_without_gradient_are_seen(net, digits):
    from robust.foreign.black_box import BlackBox

    asked = []

    def answers(x):
        asked.append(len(x))
        return net(torch.as_tensor(x)).numpy() if isinstance(x, np.ndarray) else list(x)

    found = examine(Loaded(BlackBox(answers), "a test"), digits)
    assert (found.access, found.looked, found.n) == ("scores", QUERIED, QUERIED - round(0.4 * QUERIED))
    assert sum(asked) < 1200, "each image may be a slow or paid query"
    assert examine(Loaded(net, "a test"), digits).looked == 360
    labels = BlackBox(lambda x: net(x).argmax(1))
    found = examine(Loaded(labels, "a test"), digits)
    assert found.access == "labels"
    assert found.accuracy > 0.9
