"""Every fixed-budget attack on one small digits net: inside the ball, effective, independent of its batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robust.attacks.attack import FixedBudget, SmallestDistance
from robust.classifier import Classifier, Metered
from robust.judging import judge
from robust.randomness import Randomness
from robust.registry import create

# name, settings, radius by norm, and whether one look at the gradient or none at all is too weak to be asked for much
TABLE: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("fgsm", {}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("pgd", {"steps": 10}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("pgd", {"steps": 10, "restarts": 2, "loss": "margin"}, {"linf": "0.12"}),
    ("pgd", {"steps": 10, "loss": "dlr", "early_stop": False}, {"linf": "0.12"}),
    ("pgd", {"steps": 10, "loss": "auto", "step_size": "0.02"}, {"linf": "0.12"}),
    ("bim", {"steps": 5}, {"linf": "0.12", "l2": "0.8"}),
    ("random-noise", {}, {"linf": "0.5", "l2": "4", "l1": "28"}),
    ("mi-fgsm", {"steps": 5}, {"linf": "0.12", "l2": "0.8"}),
    ("di-fgsm", {"steps": 5}, {"linf": "0.12"}),
    ("ti-fgsm", {"steps": 5, "sigma": 0.5}, {"linf": "0.2"}),
    ("apgd-ce", {"steps": 12}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("apgd-ce", {"steps": 5, "eot": 2, "restarts": 2}, {"linf": "0.12"}),
    ("apgd-dlr", {"steps": 12}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("apgd-t", {"steps": 8, "targets": 3}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("multi-targeted", {"steps": 5, "targets": 3}, {"linf": "0.12", "l2": "0.8"}),
    ("beta", {"steps": 4}, {"linf": "0.12"}),
    ("square", {"queries": 120}, {"linf": "0.2", "l2": "1.5", "l1": "8"}),
    ("spatial", {"angles": 5, "shifts": 3}, {"linf": "1"}),
    ("spatial-flow", {"steps": 10}, {"linf": "1"}),
    ("patch", {"steps": 8, "every": 3, "area": 0.25}, {"linf": "1"}),
    ("fab", {"steps": 6}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
    ("fab", {"steps": 4, "restarts": 2}, {"l2": "0.8"}),
    ("fab-t", {"steps": 6, "targets": 2}, {"linf": "0.12", "l2": "0.8", "l1": "3"}),
]
ROWS = [
    pytest.param(name, {**settings, "norm": norm, "eps": eps}, id=f"{name}-{norm}-{index}")
    for index, (name, settings, radii) in enumerate(TABLE)
    for norm, eps in radii.items()
]


def attack_images(attack: Any, classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
    run = attack.minimise if isinstance(attack, SmallestDistance) else attack.perturb
    with classifier.frozen():
        return run(classifier, images, labels, Randomness.of(0, ids, attack.name))


@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_stays_inside_lowers_accuracy_and_leaves_the_model_alone(digits_net, name, settings):
    classifier, images, labels = digits_net
    classifier, images, labels = copy.deepcopy(classifier).train(), images[:100], labels[:100]
    classifier.zero_grad()
    judged = judge(classifier, images, labels, torch.arange(100), create("attack", {"name": name, **settings}), seed=0)
    attack = create("attack", {"name": name, **settings})
    clean = (classifier(images).argmax(1) == labels).float().mean()
    assert judged.rows["correct"].mean() <= clean - (0.03 if name == "random-noise" else 0.15)
    if isinstance(attack, FixedBudget):
        assert attack.threat.contains(judged.images, images).all()
    assert classifier.training
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_verdicts_do_not_depend_on_batch_or_order(digits_net, name, settings):
    classifier, images, labels = digits_net
    classifier = copy.deepcopy(classifier).double()
    images, labels, ids = images[:24].double(), labels[:24], torch.arange(24) + 7
    attack = create("attack", {"name": name, **settings})
    whole = judge(classifier, images, labels, ids, attack, seed=3, batch_size=24).rows.set_index("sample")
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    parts = judge(classifier, images[order], labels[order], ids[order], attack, seed=3, batch_size=5).rows
    parts = parts.set_index("sample").loc[whole.index]
    columns = ["correct", "prediction", "forward", "backward"]
    assert parts[columns].equals(whole[columns])


@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_costs_no_more_than_it_says(digits_net, name, settings):
    classifier, images, labels = digits_net
    images, labels = images[:20], labels[:20]
    attack = create("attack", {"name": name, **settings})
    meter = Metered(classifier, 20)
    attack_images(attack, meter, images, labels, torch.arange(20))
    forward, backward = attack.passes(10)
    assert meter.forwards.max() <= forward
    assert meter.backwards.max() <= backward
    assert forward == 0 or meter.forwards.max() > 0


@pytest.mark.parametrize("name", sorted({name for name, _, _ in TABLE}))
def test_takes_an_empty_shard_one_sample_other_shapes_and_eps_zero(name):
    torch.manual_seed(0)
    short = {
        key: 2
        for key in ("steps", "queries")
        if key in create("attack", {"name": name, "eps": 1}).__class__.model_fields
    }
    for channels, side, count in ((1, 8, 0), (1, 8, 1), (3, 32, 2)):
        net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels * 16, 5))
        classifier, images = Classifier(net, num_classes=5), torch.rand(count, channels, side, side)
        labels = classifier(images).argmax(1)
        for eps in ("0", "1/10"):
            attack = create("attack", {"name": name, "eps": eps, **short})
            found = attack_images(attack, classifier, images, labels, torch.arange(count))
            assert found.shape == images.shape
            assert found.isfinite().all()
            if eps == "0" and isinstance(attack, FixedBudget) and name not in ("spatial", "spatial-flow", "patch"):
                assert torch.equal(found, images)


@pytest.mark.parametrize("name", sorted({name for name, _, _ in TABLE}))
def test_a_model_that_ignores_its_input_is_left_standing(name):
    classifier = Classifier(lambda images: images.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.5, 0.0]), num_classes=3)
    images, labels = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    attack = create("attack", {"name": name, "eps": "1/10"})
    small = {key: 3 for key in ("steps", "queries") if key in type(attack).model_fields}
    found = attack_images(attack.model_copy(update=small), classifier, images, labels, torch.arange(4))
    assert (classifier(found).argmax(1) == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-t"])
def test_a_linear_model_falls_exactly_below_its_margin(norm, name):
    """Two classes: min distance = (z_0 - z_1) / |w_0 - w_1|_q, with no wall of the box in reach."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    net = nn.Linear(64, 2).double()
    net.weight.data, net.bias.data = weights, -weights.sum(1) / 2
    classifier = Classifier(nn.Sequential(nn.Flatten(), net), num_classes=2).double()
    images = 0.5 + 0.01 * torch.randn(40, 1, 8, 8, generator=generator, dtype=torch.float64)
    logits = classifier(images).detach()
    labels = logits.argmax(1)
    order = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    distance = (logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(weights[0] - weights[1], ord=order)
    eps = float(distance.median()) * 1.0001
    attack = create("attack", {"name": name, "norm": norm, "eps": f"{eps:.8f}"})
    found = attack_images(attack, classifier, images, labels, torch.arange(40))
    fell = classifier(found).argmax(1) != labels
    reach = 1.0 if norm != "l1" or name in ("fgsm", "pgd") else 0.9  # sparse steps need not end on one coordinate
    assert fell[distance < reach * eps * 0.99].all()
    assert not fell[distance > eps * 1.000001].any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_fab_finds_the_exact_distance_to_a_hyperplane(linear_net, norm, name):
    classifier, images, labels = linear_net
    weights = classifier.module[1].weight.detach()
    logits = classifier(images).detach()
    order = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    gaps = logits.gather(1, labels[:, None]) - logits
    sizes = torch.linalg.vector_norm(weights[labels][:, None] - weights[None], ord=order, dim=2).clamp_min(1e-9)
    exact = (gaps / sizes).scatter(1, labels[:, None], torch.inf).amin(1)
    attack = create("attack", {"name": name, "norm": norm, "steps": 15})
    found = attack_images(attack, classifier, images, labels, torch.arange(len(labels)))
    distance = attack.threat.distance(found, images)
    assert (classifier(found).argmax(1) != labels).all()
    assert (distance >= exact * (1 - 1e-9)).all()
    # in l1 one coordinate may hit the wall of the box, and a second one must help
    assert (distance <= exact * 1.005)[exact < 0.4].all()


def test_pgd_draws_are_bitwise_the_same_in_any_company(digits_net):
    _, images, _ = digits_net
    threat = create("attack", {"name": "pgd", "eps": "0.3"}).threat
    together = threat.random_start(images[:10], Randomness.of(5, range(10), "pgd"))
    alone = [threat.random_start(images[i : i + 1], Randomness.of(5, [i], "pgd")) for i in reversed(range(10))]
    assert torch.equal(together, torch.cat(alone[::-1]))


def test_samples_leave_when_they_fall(digits_net):
    classifier, images, labels = digits_net
    attack = create("attack", {"name": "pgd", "eps": "0.3", "steps": 40})
    frame = judge(classifier, images[:50], labels[:50], torch.arange(50), attack, seed=0).rows
    assert frame.loc[frame["success"], "backward"].median() < 20


def test_dlr_with_two_classes_says_what_to_do_and_auto_needs_no_advice():
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), num_classes=2)
    images = torch.rand(4, 1, 8, 8)
    labels = classifier(images).argmax(1)
    attack = create("attack", {"name": "pgd", "eps": "0.3", "loss": "dlr"})
    with pytest.raises(ValueError, match="use 'margin'"):
        attack_images(attack, classifier, images, labels, torch.arange(4))
    with pytest.raises(ValueError, match="apgd-dlr needs at least 3 classes"):
        judge(classifier, images, labels, torch.arange(4), create("attack", {"name": "apgd-dlr", "eps": "0.3"}), 0)
    attack = create("attack", {"name": "pgd", "eps": "1", "loss": "auto"})
    found = attack_images(attack, classifier, images, labels, torch.arange(4))
    assert (classifier(found).argmax(1) != labels).all()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_autoattack_fits_its_members_to_the_number_of_classes(version, classes):
    torch.manual_seed(0)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, classes)))
    images = torch.rand(6, 1, 8, 8)
    labels = classifier(images).argmax(1)
    attack = create("attack", {"name": "autoattack", "eps": "1/2", "version": version})
    assert all(member.min_classes <= classes for member in attack.members(classes))
    found = attack_images(attack, classifier, images, labels, torch.arange(6))
    assert (classifier(found).argmax(1) != labels).all()


def test_autoattack_has_the_published_members_and_budgets():
    attack = create("attack", {"name": "autoattack", "eps": "8/255"})
    ce, targeted, boundary, square = attack.members(10)
    assert (ce.name, ce.steps, ce.restarts) == ("apgd-ce", 100, 1)
    assert (targeted.name, targeted.steps, targeted.targets, targeted.restarts) == ("apgd-t", 100, 9, 1)
    assert (boundary.name, boundary.steps, boundary.targets, boundary.restarts) == ("fab-t", 100, 9, 1)
    assert (square.name, square.queries, square.p_init, square.rescale) == ("square", 5000, 0.8, False)
    l1 = create("attack", {"name": "autoattack", "eps": "12", "norm": "l1"}).members(10)
    assert (l1[0].restarts, l1[1].targets, l1[2].targets) == (5, 5, 9)
    plus = create("attack", {"name": "autoattack", "eps": "8/255", "version": "plus"}).members(10)
    assert [m.name for m in plus] == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [m.restarts for m in plus] == [5, 5, 5, 1, 1, 1]
    rand = create("attack", {"name": "autoattack", "eps": "8/255", "version": "rand"}).members(10)
    assert [(m.name, m.eot) for m in rand] == [("apgd-ce", 20), ("apgd-dlr", 20)]
    forward, backward = attack.passes(10)
    assert backward == 101 + 9 * 101 + 900
    assert forward > backward + 5000
