import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.datasets.digits import Digits
from robust.log_losses import log_losses
from robust.margins import all_logits, margins_of
from robust.models.homogeneous_mlp import HomogeneousMLP
from robust.models.mlp import MLP
from robust.objectives.constant_rate import ConstantRate
from robust.objectives.loss_based_lr import LossBasedLR
from robust.objectives.margin_tracking import PlainSGD
from robust.objectives.objective import Batch, Loss, State, Training
from robust.training import Interrupted, Trained, train

NET = HomogeneousMLP(hidden=(16,))


@pytest.fixture(scope="module")
def splits() -> tuple[Dataset, Dataset]:
    spec = Digits(train=100, select=50)
    return spec.load("train"), spec.load("select")


def settings(epochs: int, lr: float = 0.1, **more) -> PlainSGD:
    return PlainSGD(epochs=epochs, batch_size=50, lr=lr, **more)


def fit(splits, objective, model=NET, **given) -> Trained:
    return train(model, objective, *splits, device="cpu", threads=1, **given)


@pytest.fixture(scope="module")
def arms(splits) -> dict[str, Trained]:
    objectives = LossBasedLR(training=settings(300)), ConstantRate(training=settings(300, lr=0.01))
    return {objective.name: fit(splits, objective) for objective in objectives}


def test_the_loss_falls_far_below_the_constant_rates_and_the_margin_grows(arms):
    fast, slow = arms["loss-based-lr"].history, arms["constant-rate"].history
    assert fast[-1]["log10_loss"] < -2 < slow[-1]["log10_loss"]
    assert fast[-1]["margin_product"] > 0.03 > slow[-1]["margin_product"]
    assert fast[-1].keys() == slow[-1].keys() | {"log_smoothed_margin"}


def test_counts_rates_and_rollbacks_follow_the_rule(arms):
    objective, history = LossBasedLR(), arms["loss-based-lr"].history
    accepted, loss, log_growth = 0, None, 0.0
    for tries, row in enumerate(history, 1):
        assert row["tries"] == tries
        kept = row["accepted"] > accepted
        assert row["rolled_back"] == (not kept)
        if loss is not None:
            assert row["log10_rate"] == pytest.approx(math.log10(0.1) + log_growth / math.log(10) - loss, abs=1e-9)
            assert row["log10_loss"] <= loss if kept else row["log10_loss"] == loss
        log_growth += math.log(objective.growth) if kept else -math.log(objective.shrink)
        accepted, loss = row["accepted"], row["log10_loss"]
    assert 0.2 < accepted / len(history) < 0.8
    assert all(row["accepted"] == row["tries"] for row in arms["constant-rate"].history)


def test_the_history_is_about_the_weights_that_are_left(arms, splits):
    for trained in arms.values():
        found = margins_of(trained.classifier, splits[0], 2)
        assert trained.best_epoch == len(trained.history)
        for name, value in found.row().items():
            assert trained.history[-1][name] == pytest.approx(value, rel=1e-6)


def test_margins_in_closed_form_for_two_linear_layers(splits):
    """Logits W2 W1 x: all norms and margins are written down directly."""
    images, labels, _ = splits[0].batch(slice(None))
    torch.manual_seed(0)
    classifier = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5, bias=False),
                                                torch.nn.Linear(5, 10, bias=False)).double())  # fmt: skip
    first, second = (layer.weight.detach() for layer in list(classifier.module)[1:])
    logits = images.flatten(1).double() @ first.T @ second.T
    own = logits.gather(1, labels[:, None])[:, 0]
    gaps = own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    found = margins_of(classifier, splits[0], 2)
    assert found.smallest == pytest.approx(float(gaps.min()))
    assert found.product == pytest.approx(float(gaps.min() / (first.norm() * second.norm())))
    assert found.normalised == pytest.approx(float(gaps.min() / (first.norm() ** 2 + second.norm() ** 2)))
    total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    rho = float(first.norm() ** 2 + second.norm() ** 2)
    assert found.smoothed == pytest.approx(-math.log(math.expm1(float(total))) / rho)
    assert torch.allclose(all_logits(classifier, splits[0])[0], logits)


def test_the_smoothed_margin_of_separable_data_approaches_the_margin_from_below():
    """Two orthogonal points, Phi = a I x: q = a for both, smoothed margin = -log(expm1(2 log1p(e^-a))) / (2 a^2)."""
    pixels = (255 * np.eye(2, dtype=np.uint8)).reshape(2, 1, 1, 2)
    points = Dataset("points", "train", pixels, np.arange(2), np.arange(2), ("a", "b"), "x")
    layer = torch.nn.Linear(2, 2, bias=False)
    classifier = Classifier(torch.nn.Sequential(torch.nn.Flatten(), layer))
    before = -math.inf
    for a in (2.0, 5.0, 50.0, 2000.0):
        torch.nn.init.eye_(layer.weight).data.mul_(a)
        found = margins_of(classifier, points, 1)
        assert found.smallest == a
        assert found.normalised == pytest.approx(1 / math.sqrt(2))
        expected = a if a > 1000 else -math.log(math.expm1(2 * math.log1p(math.exp(-a))))
        assert found.smoothed == pytest.approx((expected - (math.log(2) if a > 1000 else 0)) / (a * math.sqrt(2)))
        assert before < found.smoothed < found.normalised  # it rises to the margin as the loss falls
        before = found.smoothed
    assert found.row()["log10_loss"] == pytest.approx(-2000 / math.log(10))


class Bumped(LossBasedLR):
    """Moves the weights to a worse place, to infinity, or to a huge batch loss, in its third epoch."""

    bump: str = "0"

    def after_step(self, classifier: Classifier, state: State) -> None:
        if state["tries"] == 2 and not state["failed"] and "before" not in state:
            state["before"] = [parameter.detach().clone() for parameter in classifier.parameters()]
            with torch.no_grad():
                for parameter in classifier.parameters():
                    parameter.mul_(float(self.bump))


@pytest.mark.parametrize("bump", ["-1", "1e30", "inf", "nan"])
def test_a_try_that_fails_leaves_the_weights_of_the_epoch_before(splits, bump):
    two = fit(splits, LossBasedLR(training=settings(2)))
    three = fit(splits, Bumped(bump=bump, training=settings(3)))
    assert [row["rolled_back"] for row in three.history] == [0.0, 0.0, 1.0]
    assert three.history[2]["log10_loss"] == two.history[1]["log10_loss"]
    assert all(torch.equal(value, two.last[name]) for name, value in three.last.items())
    four = fit(splits, Bumped(bump=bump, training=settings(4)))
    rate = four.history[3]["log10_rate"] - four.history[2]["log10_rate"]
    assert rate == pytest.approx(-math.log10(2) / 10)


@pytest.mark.parametrize("stop_at", [3, 5, 6, 15])
def test_stopped_and_resumed_equals_uninterrupted(splits, tmp_path, stop_at):
    objective = Bumped(bump="1e30", training=settings(10))  # stopped within the failed try, too
    whole = fit(splits, objective)
    asked = iter(range(1, 10_000))
    with pytest.raises(Interrupted):
        fit(splits, objective, folder=tmp_path, stop=lambda: next(asked) == stop_at)
    resumed = fit(splits, objective, folder=tmp_path)
    assert whole.history == resumed.history
    assert all(torch.equal(value, resumed.last[name]) for name, value in whole.last.items())


def test_training_goes_on_at_a_loss_of_ten_to_the_minus_hundreds(splits, arms):
    classifier = NET.classifier(splits[0].inputs())
    classifier.module.load_state_dict(arms["loss-based-lr"].last)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.mul_(30)
    trained = train(classifier, LossBasedLR(training=settings(40, lr=1e-7)), *splits, device="cpu", threads=1)
    assert trained.history[0]["log10_loss"] < -800
    assert trained.history[-1]["log10_loss"] < trained.history[0]["log10_loss"] - 1
    assert trained.history[-1]["accepted"] > 3
    undefined = {name for row in trained.history for name, value in row.items() if not math.isfinite(value)}
    assert not undefined
    assert max(row["log10_rate"] for row in trained.history) > 800  # the rate itself has no double


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
@pytest.mark.parametrize("method", [LossBasedLR, ConstantRate])
def test_other_losses_train_and_are_the_ones_recorded(splits, method, loss):
    objective = method(loss_function=loss, training=settings(30, lr=0.02))
    trained = fit(splits, objective)
    logits, labels = all_logits(trained.classifier, splits[0])
    mean = float(log_losses(logits, labels, loss).exp().mean())
    assert trained.history[-1]["log10_loss"] == pytest.approx(math.log10(mean), abs=1e-5)
    assert trained.history[-1]["log10_loss"] < trained.history[0]["log10_loss"]


def test_a_network_with_biases_has_the_product_form_alone(splits):
    row = fit(splits, ConstantRate(training=settings(2)), MLP(hidden=(8,))).history[-1]
    assert "margin_product" in row
    assert not {"margin_norm", "smoothed_margin"} & row.keys()


def test_float64_passes_leave_float32_weights_and_agree(splits):
    rows = [fit(splits, ConstantRate(full_precision=p, training=settings(3))).history[-1] for p in ("32", "64")]
    assert rows[0]["log10_loss"] == pytest.approx(rows[1]["log10_loss"], rel=1e-5)
    assert rows[0]["parameter_norm"] == rows[1]["parameter_norm"]


def test_nothing_moves_below_the_smallest_rate(splits):
    trained = fit(splits, LossBasedLR(smallest=4.0, growth=1.01, shrink=4.0, training=settings(20, lr=8.0)))
    rates = [row["log10_rate"] + row["log10_loss"] for row in trained.history if row["rolled_back"]]
    assert len(rates) > 2
    assert rates[-1] == rates[-2]
    assert trained.history[-1]["log10_loss"] == trained.history[-2]["log10_loss"]


def test_anything_but_plain_descent_is_refused():
    for wrong in ({"optimizer": "adam"}, {"momentum": 0.9}, {"weight_decay": 1e-4}, {"schedule": "cosine"}):
        with pytest.raises(ValidationError):
            LossBasedLR(training=wrong)
    assert LossBasedLR(training=Training(epochs=7)).training == PlainSGD(epochs=7)


def test_a_gradient_that_is_not_finite_ends_the_try(splits):
    class Poisoned(LossBasedLR):
        def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
            found = super().loss(classifier, batch, state)
            if batch.step != 3 or not found.total.grad_fn:
                return found
            tail = classifier.module[-1].weight.sum()
            return Loss(found.total + 0.0 * (tail - tail.detach()).abs().sqrt())  # 0, of slope NaN

    trained = fit(splits, Poisoned(training=settings(3)))
    assert [row["rolled_back"] for row in trained.history][:2] == [0.0, 1.0]
    assert all(value.isfinite().all() for value in trained.last.values())
