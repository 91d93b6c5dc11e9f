"""Smallest-distance attacks against closed forms, against Foolbox, and against themselves in other batches."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from robust.attacks.attack import SmallestDistance
from robust.attacks.binary_search import BinarySearch
from robust.attacks.cw import CW
from robust.attacks.ddn import DDN
from robust.attacks.deepfool import DeepFool
from robust.attacks.fmn import FMN
from robust.attacks.pgd import PGD
from robust.classifier import Classifier, Metered
from robust.evaluation import evaluate
from robust.randomness import Randomness
from robust.threat import ThreatModel

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def pgd(norm: str, eps: str, steps: int = 10) -> PGD:
    return PGD.model_validate({"norm": norm, "eps": eps, "steps": steps, "loss": "margin"})


def make(kind: type[SmallestDistance], **settings: object) -> SmallestDistance:
    return kind.model_validate(settings)


# attack, median relative excess over the exact distance on a linear classifier, median distance on the digits net
CASES = {
    "ddn": (make(DDN, steps=100), 0.15, 0.75),
    "deepfool-l2": (make(DeepFool), 1e-3, 0.85),
    "deepfool-linf": (make(DeepFool, norm="linf"), 1e-3, 0.16),
    "fmn-l2": (make(FMN, norm="l2", steps=100), 5e-3, 0.75),
    "fmn-linf": (make(FMN, norm="linf", steps=100), 5e-3, 0.14),
    "fmn-l1": (make(FMN, norm="l1", steps=100), 1e-2, 3.0),
    "cw": (make(CW, steps=60, rate=0.02, searches=5, constant=0.1), 0.1, 0.85),
    "binary-search-l2": (BinarySearch.model_validate({"attack": pgd("l2", "2"), "halvings": 6}), 3e-2, 0.8),
    "binary-search-linf": (BinarySearch.model_validate({"attack": pgd("linf", "1/4"), "halvings": 6}), 5e-2, 0.15),
}


def distances(attack: SmallestDistance, net: tuple[Classifier, Tensor, Tensor], n: int) -> Tensor:
    classifier, images, labels = (net[0], net[1][:n], net[2][:n])
    with classifier.frozen():
        found = attack.minimise(classifier, images, labels, Randomness.of(0, range(len(labels)), attack.name))
        wrong = classifier(found).argmax(1) != labels
    assert found.min() >= 0
    assert found.max() <= 1
    return torch.where(wrong, attack.threat.distance(found, images), torch.inf)


def exact_distance(net: tuple[Classifier, Tensor, Tensor], norm: str, n: int) -> Tensor:
    classifier, images, labels = net
    logits = classifier(images[:n]).detach()
    weight = classifier.module[-1].weight.detach()
    gaps = logits.gather(1, labels[:n, None]) - logits
    slopes = torch.linalg.vector_norm(weight[labels[:n], None] - weight[None], ord=DUAL[norm], dim=2)
    return (gaps / slopes).nan_to_num(nan=math.inf).amin(1)


@pytest.mark.parametrize("case", CASES)
def test_distance_on_a_linear_classifier_is_the_closed_form(case, linear_net):
    attack, excess, _ = CASES[case]
    truth = exact_distance(linear_net, attack.threat.norm, 20)
    found = distances(attack, linear_net, 20)
    assert (found >= truth * (1 - 1e-9)).all()
    resolution = attack.attack.threat.radius / 2**attack.halvings if isinstance(attack, BinarySearch) else 0.0
    assert ((found - resolution) / truth).median() <= 1 + excess


@pytest.mark.parametrize("case", CASES)
def test_median_distance_on_digits(case, digits_net):
    attack, _, median = CASES[case]
    classifier, images, labels = digits_net
    frame = evaluate(classifier, images[:30], labels[:30], [attack]).frame(attack.name)
    attacked = frame[frame["distance"] > 0]
    assert attacked["distance"].median() < median
    assert frame["success"].all()


def foolbox_distances(net: tuple[Classifier, Tensor, Tensor], attack: object, norm: str) -> Tensor:
    import foolbox

    classifier, images, labels = net
    with classifier.frozen():
        model = foolbox.PyTorchModel(classifier, bounds=(0, 1))
        raw, _, success = attack(model, images, labels, epsilons=None)
    # where Foolbox's CW finds nothing it returns a black image, which often counts as misclassified
    found = success & raw.flatten(1).any(1)
    return torch.where(found, ThreatModel(norm=norm).distance(raw, images), torch.inf)


def peers() -> dict[str, tuple[SmallestDistance, object]]:
    import foolbox.attacks as peer

    return {
        "ddn": (make(DDN), peer.DDNAttack(steps=100)),
        "deepfool-l2": (make(DeepFool), peer.L2DeepFoolAttack(steps=50)),
        "deepfool-linf": (make(DeepFool, norm="linf"), peer.LinfDeepFoolAttack(steps=50)),
        "fmn-l2": (make(FMN, norm="l2"), peer.L2FMNAttack(steps=100)),
        "fmn-linf": (make(FMN, norm="linf"), peer.LInfFMNAttack(steps=100)),
        "fmn-l1": (make(FMN, norm="l1"), peer.L1FMNAttack(steps=100)),
        "cw": (
            make(CW, steps=60, searches=4, constant=0.1, abort_early=False),
            peer.L2CarliniWagnerAttack(steps=60, binary_search_steps=4, initial_const=0.1, abort_early=False),
        ),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peer
@pytest.mark.parametrize("case", ["ddn", "deepfool-l2", "deepfool-linf", "fmn-l2", "fmn-linf", "fmn-l1", "cw"])
def test_median_at_most_1_02_of_foolbox(case, digits_net):
    attack, peer = peers()[case]
    classifier, images, labels = digits_net
    right = classifier(images).argmax(1) == labels
    net = (classifier, images[right][:32], labels[right][:32])
    ours, theirs = distances(attack, net, 32), foolbox_distances(net, peer, attack.threat.norm)
    assert ours.isfinite().all()
    assert ours.median() <= 1.02 * theirs.median()


@pytest.mark.parametrize("case", CASES)
def test_distance_is_independent_of_the_batch(case, digits_net):
    attack = CASES[case][0]
    fewer = {"steps": 15} if "steps" in type(attack).model_fields else {}
    attack = attack.model_copy(update=fewer)
    classifier, images, labels = digits_net
    double = copy.deepcopy(classifier).double()
    x, y, rng = images[:7].double(), labels[:7], Randomness.of(3, range(7), attack.name)
    with double.frozen():
        whole = attack.minimise(double, x, y, rng)
        order = torch.tensor([4, 0, 6])
        part = attack.minimise(double, x[order], y[order], rng.select(order))
    torch.testing.assert_close(part, whole[order], atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_passes_stay_within_what_the_planner_counts(case, digits_net):
    attack = CASES[case][0]
    classifier, images, labels = digits_net
    meter = Metered(classifier, 10)
    with classifier.frozen():
        attack.minimise(meter, images[:10], labels[:10], Randomness.of(0, range(10), attack.name))
    forward, backward = attack.passes(10)
    assert 0 < meter.forwards.max() <= forward
    assert 0 < meter.backwards.max() <= backward


def test_deepfool_lets_samples_leave_when_they_are_fooled(digits_net):
    classifier, images, labels = digits_net
    meter = Metered(classifier, 20)
    attack = make(DeepFool, bisections=0)
    with classifier.frozen():
        attack.minimise(meter, images[:20], labels[:20], Randomness.of(0, range(20), "deepfool"))
    assert meter.forwards.min() < meter.forwards.max()


def test_ddn_with_a_margin_loss_survives_saturated_logits(digits_net):
    classifier, images, labels = digits_net
    loud = Classifier(lambda x: 1000 * classifier(x), num_classes=10)
    quiet = distances(make(DDN, loss="margin", steps=50), digits_net, 30)
    scaled = distances(make(DDN, loss="margin", steps=50), (loud, images, labels), 30)
    torch.testing.assert_close(scaled.median(), quiet.median(), rtol=0.05, atol=0)


def test_a_flat_classifier_is_not_broken_and_keeps_the_original():
    flat = Classifier(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :1], num_classes=2)
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    for attack in (make(DDN, steps=5), make(DeepFool, steps=5), make(FMN, steps=5), make(CW, steps=5, searches=2)):
        found = attack.minimise(flat, images, labels, Randomness.of(0, range(3), attack.name))
        assert torch.equal(found, images)


def test_binary_search_says_what_it_needs():
    with pytest.raises(ValueError, match="attack must be a fixed-budget attack"):
        BinarySearch.model_validate({"attack": make(DDN)})
    with pytest.raises(ValueError, match="measures l2"):
        BinarySearch.model_validate({"attack": pgd("linf", "1/2"), "norm": "l2"})


def test_binary_search_settings_name_the_inner_attack():
    settings = BinarySearch.model_validate({"attack": pgd("linf", "1/2")}).settings()
    assert settings["attack"]["name"] == "pgd"
    assert settings["attack"]["threat"]["eps"] == "1/2"
    assert settings["threat"]["norm"] == "linf"
    assert settings["threat"]["eps"] is None
