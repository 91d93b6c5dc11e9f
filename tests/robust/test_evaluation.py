"""The evaluation loop against a linear classifier, whose exact robustness is known in closed form."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from robust.attacks.attack import FixedBudget, SmallestDistance, input_gradient
from robust.classifier import Classifier, Metered
from robust.corruptions import Clean, GaussianNoise
from robust.evaluation import evaluate
from robust.judging import judge
from robust.losses import margin
from robust.threat import ThreatModel


class OneStep(FixedBudget):
    """The exact linf optimum on a linear two-class model."""

    name: ClassVar[str] = "one-step"

    def perturb(self, classifier, images, labels, rng):
        gradient, _, _ = input_gradient(classifier, images, lambda z: margin(z, labels))
        return self.threat.project(images + self.threat.radius * gradient.sign(), images)


class Liar(FixedBudget):
    """Leaves the ball and claims success."""

    name: ClassVar[str] = "liar"

    def perturb(self, classifier, images, labels, rng):
        return torch.where(images > 0.5, 0.0, 1.0)


class BlackImage(SmallestDistance):
    """Returns a black image, however far."""

    name: ClassVar[str] = "black"

    def minimise(self, classifier, images, labels, rng):
        return torch.zeros_like(images)


def linear(weight: torch.Tensor, bias: float = 0.0) -> Classifier:
    layer = nn.Linear(weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight, weight]) / 2)
        layer.bias.copy_(torch.tensor([-bias, bias]) / 2)
    return Classifier(nn.Sequential(nn.Flatten(), layer), num_classes=2)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    weight = torch.randn(16)
    images = 0.3 + 0.4 * torch.rand(60, 1, 4, 4)
    classifier = linear(weight, float(-(weight.sum() / 2)))
    labels = classifier(images).argmax(1)
    labels[:5] = 1 - labels[:5]  # five samples are misclassified already
    return classifier, images, labels, weight


def test_success_is_exactly_what_the_dual_norm_says(problem):
    classifier, images, labels, weight = problem
    eps = 0.05
    ledger = evaluate(classifier, images, labels, [OneStep(eps=eps)])
    frame = ledger.frame("one-step")
    margins = classifier(images).diff(dim=1)[:, 0].abs().detach()
    expected = (margins < eps * weight.abs().sum()) | (torch.arange(60) < 5)
    assert frame["success"].tolist() == expected.tolist()
    assert (frame["correct"] == ~frame["success"]).all()
    assert frame["distance"][:5].tolist() == [0.0] * 5
    assert frame["distance"][frame["success"]].max() <= eps + 1e-6
    assert (frame["distance"][~frame["success"]] == float("inf")).all()


def test_only_correct_samples_cost_passes(problem):
    classifier, images, labels, _ = problem
    frame = evaluate(classifier, images, labels, [OneStep(eps="1/20")]).frame("one-step")
    assert frame["forward"].tolist() == [1] * 5 + [2] * 55  # one to see that it is right, one in the attack
    assert frame["backward"].tolist() == [0] * 5 + [1] * 55


def test_an_attack_cannot_report_a_win_that_it_does_not_have(problem):
    classifier, images, labels, _ = problem
    frame = evaluate(classifier, images, labels, [Liar(eps="1/20")]).frame("liar")
    assert frame["success"].sum() == 5
    clean = evaluate(classifier, images, labels, []).frame("clean")
    assert frame["prediction"].tolist() == clean["prediction"].tolist()


def test_smallest_distance_counts_within_eps_only(problem):
    classifier, images, labels, _ = problem
    free = evaluate(classifier, images, labels, [BlackImage(norm="l2")]).frame("black")
    found = free["success"] & (free["distance"] > 0)
    assert found.any()
    assert free["distance"][found].min() > 1
    bounded = evaluate(classifier, images, labels, [BlackImage(norm="l2", eps="1/2")]).frame("black")
    assert bounded["success"].sum() == 5
    assert bounded["distance"][bounded.index[found]].gt(0.5).all()


def test_batch_size_and_order_do_not_move_a_verdict_in_float64(problem):
    classifier, images, labels, _ = problem
    classifier, images = classifier.double(), images.double()
    noise = [GaussianNoise(sigma="1/5"), OneStep(eps="1/20")]
    whole = evaluate(classifier, images, labels, noise).rows
    small = evaluate(classifier, images, labels, noise, batch_size=7, shard_size=13).rows
    order = torch.randperm(60)
    mixed = evaluate(classifier, images[order], labels[order], noise, ids=order).rows
    columns = ["evaluation", "sample", "prediction", "correct", "success", "forward", "backward"]
    assert whole.select(columns).equals(small.select(columns))
    assert whole.select(columns).equals(mixed.select(columns))


def test_modes_flags_and_gradients_are_left_alone(problem):
    _, images, labels, _ = problem
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    module[1].eval()
    module[3].weight.requires_grad_(False)
    classifier = Classifier(module, num_classes=2).train()
    module[1].eval()
    evaluate(classifier, images, labels, [OneStep(eps="1/20")])
    assert [m.training for m in module] == [True, False, True, True]
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in module.parameters())


def test_running_out_of_memory_halves_the_batch(problem):
    classifier, images, labels, _ = problem

    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 10:
                raise torch.OutOfMemoryError("pretend that the device is small")
            return classifier(x)

    rows = evaluate(Classifier(Small(), num_classes=2), images, labels, [OneStep(eps="1/20")]).rows
    expected = evaluate(classifier, images, labels, [OneStep(eps="1/20")]).rows
    columns = ["evaluation", "sample", "prediction", "success"]
    assert rows.select(columns).equals(expected.select(columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), "divide 8-bit images by 255"),
        (lambda x, y: (x - 1, y), "outside"),
        (lambda x, y: (x.where(x > 0.5, torch.nan), y), "NaN"),
        (lambda x, y: (x, y + 7), "classes"),
        (lambda x, y: (x[:3], y), "do not match"),
        (lambda x, y: (x[:, 0], y), "N,C,H,W"),
        (lambda x, y: ((x * 255).to(torch.uint8), y), "float"),
    ],
)
def test_bad_input_is_refused_by_name(problem, change, message):
    classifier, images, labels, _ = problem
    images, labels = change(images, labels)
    with pytest.raises(ValueError, match=message):
        judge(classifier, images, labels, torch.arange(len(labels)), Clean(), 0)


def test_nan_logits_are_refused(problem):
    _, images, labels, _ = problem
    broken = Classifier(lambda x: torch.full((len(x), 2), torch.nan), num_classes=2)
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        evaluate(broken, images, labels, [])


def test_an_empty_shard_gives_no_rows(problem):
    classifier, images, labels, _ = problem
    empty = torch.arange(0)
    assert judge(classifier, images[:0], labels[:0], empty, OneStep(eps="1/20"), 0).rows.empty


def test_meter_counts_copies_and_refuses_unknown_rows(problem):
    classifier, images, _, _ = problem
    meter = Metered(classifier, 4)
    meter(images[:4])
    view = meter.select(torch.tensor([1, 3]))
    view(images[:6])
    with pytest.raises(ValueError, match=r"classifier\.select"):
        view(images[:3])
    assert meter.forwards.tolist() == [1, 4, 1, 4]
    assert meter.backwards.tolist() == [0, 0, 0, 0]


def test_threat_of_the_evaluation_is_what_was_written():
    attack = OneStep(norm="linf", eps="8/255")
    assert attack.threat == ThreatModel(norm="linf", eps="8/255")
    with pytest.raises(ValueError, match="needs a radius"):
        OneStep(norm="linf")
