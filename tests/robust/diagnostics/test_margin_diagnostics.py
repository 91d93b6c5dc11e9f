import math

import numpy as np
import pytest
import torch

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.datasets.digits import Digits
from robust.diagnostics.diagnostic import Measured, Subject
from robust.diagnostics.kkt_distance import KKTDistance, kkt
from robust.diagnostics.margin_snapshots import MarginSnapshots
from robust.diagnostics.margins import MarginsDiagnostic
from robust.diagnostics.stages import l2_distances, line, survival
from robust.log_losses import log_losses
from robust.models.homogeneous_mlp import HomogeneousMLP
from robust.models.mlp import MLP
from robust.objectives.loss_based_lr import LossBasedLR
from robust.objectives.margin_tracking import PlainSGD
from robust.randomness import Randomness
from robust.training import train

MODEL = HomogeneousMLP(hidden=(16,))
EPOCHS = (60, 200, 300)


def with_weights(weights) -> Classifier:
    classifier = MODEL.classifier(Digits(train=100, select=50).load("train").inputs())
    classifier.module.load_state_dict(weights)
    return classifier.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def subject() -> Subject:
    spec = Digits(train=100, select=50, test=60)
    objective = LossBasedLR(training=PlainSGD(epochs=300, batch_size=50, lr=0.1, snapshots=EPOCHS))
    fitted, select = spec.load("train"), spec.load("select")
    trained = train(MODEL, objective, fitted, select, device="cpu", threads=1)
    snapshots = {epoch: (lambda weights=weights: with_weights(weights)) for epoch, weights in trained.snapshots.items()}
    classifier = trained.classifier.requires_grad_(False)
    return Subject(classifier, fitted, spec.load("test"), history=trained.history, snapshots=snapshots)


def values(measured: Measured, epoch: int | None = None) -> dict[str, float]:
    return {row["quantity"]: row["value"] for row in measured.rows if epoch is None or row.get("epoch") == epoch}


def linear(matrix: torch.Tensor) -> Classifier:
    layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight.data = matrix.double()
    return Classifier(torch.nn.Sequential(torch.nn.Flatten(), layer)).requires_grad_(False)


def points(rows: list[list[int]]) -> Dataset:
    pixels = np.array(rows, dtype=np.uint8).reshape(len(rows), 1, 1, -1)
    count = np.arange(len(rows))
    return Dataset("points", "train", pixels, count, count, tuple(map(str, count)), "x")


def test_the_maximum_margin_solution_is_a_kkt_point():
    # two orthogonal points, min |W|^2 / 2 under q >= 1: W = [[1, -1], [-1, 1]] / 2, by symmetry
    best = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])
    for scale in (3.0, 3000.0):  # the latter with a loss of 10^-1302
        for loss in ("cross-entropy", "exponential", "logistic"):
            found = kkt(linear(scale * best), points([[255, 0], [0, 255]]), 1, loss)
            assert found.smallest == pytest.approx(scale)
            assert found.size == pytest.approx(1.0)
            assert found.epsilon < 1e-7
            assert found.delta < 1e-7
            assert found.cosine == pytest.approx(1.0)


def test_residuals_in_closed_form_away_from_the_solution():
    # W = diag(a, a) has q = a for both points and -grad of each margin along [[1, -1], [-1, 1]]: an angle of 45 degrees
    found = kkt(linear(50 * torch.eye(2)), points([[255, 0], [0, 255]]), 1)
    assert found.cosine == pytest.approx(math.cos(math.pi / 4))
    assert found.epsilon / found.size == pytest.approx(math.sqrt(2 - math.sqrt(2)))
    assert found.delta == pytest.approx(0.0, abs=1e-9)
    # W = diag(a, 2a): margins a and 2a; lambda_2 falls as e^-a, and with it the slackness term
    small, large = (kkt(linear(a * torch.diag(torch.tensor([1.0, 2.0]))), points([[255, 0], [0, 255]]), 1)
                    for a in (2.0, 20.0))  # fmt: skip
    assert large.delta < 1e-6 < small.delta
    assert kkt(linear(-torch.eye(2)), points([[255, 0], [0, 255]]), 1) is None


def test_descent_brings_the_weights_nearer_to_a_kkt_point():
    data = points([[255, 0, 20], [0, 255, 80], [150, 100, 255]])
    classifier = linear(torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]))
    images, labels, _ = data.batch(slice(None))
    found, weight = [], classifier.module[1].weight
    for step in range(3001):
        if step in (0, 100, 3000):
            found.append(kkt(classifier, data, 1))
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_(True)
            logits = images.flatten(1).double() @ leaf.T
            (gradient,) = torch.autograd.grad(log_losses(logits, labels).logsumexp(0), leaf)
        weight.data -= 0.1 * gradient
    relative = [each.epsilon / each.size for each in found]
    assert relative[0] > 3 * relative[1] > 9 * relative[2]
    assert found[2].delta < 0.1 * found[0].delta
    assert found[2].cosine > 0.999


def test_residuals_at_the_snapshots_of_a_training(subject):
    measured = KKTDistance().measure(subject)
    epsilons = [row["value"] for row in measured.rows if row["quantity"] == "kkt epsilon, relative"]
    assert len(epsilons) == len(EPOCHS)
    assert all(0 < epsilon < math.sqrt(2) for epsilon in epsilons[1:])  # sqrt(2): at a right angle
    assert measured.figures[0]["series"][0]["x"] == [200, 300]
    assert all(parameter.dtype == torch.float32 for parameter in subject.classifier.parameters())
    torch.manual_seed(0)
    biased = MLP(hidden=(4,)).classifier(subject.train.inputs())
    rows = KKTDistance().measure(Subject(biased, subject.train, subject.test)).rows
    assert rows[0]["detail"] == "the network is not homogeneous"


def test_margins_reports_the_course_and_the_figure(subject):
    measured = MarginsDiagnostic().measure(subject)
    found = values(measured)
    last = subject.history[-1]
    assert found["margin_product"] == pytest.approx(last["margin_product"], rel=1e-5)
    assert (found["tries"], found["accepted epochs"]) == (300, last["accepted"])
    assert found["share rolled back"] == pytest.approx(1 - last["accepted"] / 300)
    assert found["log10 loss per accepted epoch"] < 0
    first = int(found["first epoch without an error"])
    assert subject.history[first - 1]["train_accuracy"] == 1.0 > subject.history[first - 2]["train_accuracy"]
    by = {row["at"]: row["value"] for row in measured.rows if row["quantity"] == "margin_product by tries"}
    assert by[100] == subject.history[99]["margin_product"]
    ids = [figure["id"] for figure in measured.figures]
    assert ids == ["m1-margin", "m1-smoothed", "m1-loss", "m1-rate", "m1-rollbacks"]
    assert measured.figures[0]["series"][0]["x"][-1] == 300


def course(*smoothed: float, log10_loss: float = -3.0) -> list[dict[str, float]]:
    """A history of accepted epochs with these smoothed margins."""
    common = {"log10_loss": log10_loss, "margin_product": 1.0, "rolled_back": 0.0, "train_accuracy": 1.0}
    return [
        {**common, "epoch": float(k), "tries": float(k), "accepted": float(k), "log_smoothed_margin": math.log(value)}
        for k, value in enumerate(smoothed, 1)
    ]


@pytest.mark.parametrize(
    ("history", "worst", "named"),
    [
        (course(1.0, 1.5, 2.0), 0.0, ""),
        (course(1.0, 1.0 - 5e-7, 2.0), 5e-7, ""),
        (course(1.0, 1.5, 1.2, 2.0, 1.9), 0.2, "3, 5"),
        (course(2.0, 1.0, log10_loss=0.0), 0.0, ""),  # the loss sum is still above log 2
    ],
)
def test_the_monotonicity_check_names_the_epochs_that_break_it(subject, history, worst, named):
    measured = MarginsDiagnostic().measure(Subject(subject.classifier, subject.train, subject.test, history=history))
    rows = {row["quantity"]: row for row in measured.rows}
    assert rows["largest relative drop of the smoothed margin"]["value"] == pytest.approx(worst, rel=1e-6)
    assert rows["epochs in which the smoothed margin falls"]["detail"] == named
    assert rows["epochs in which the smoothed margin falls"]["value"] == len(named.split(", ")) * bool(named)


def test_snapshots_have_the_table_the_curves_and_the_scatter(subject):
    method = MarginSnapshots(samples=30, steps=30)
    measured = method.measure(subject)
    table = [values(measured, epoch) for epoch in EPOCHS]
    assert table[0]["margin_product"] < table[-1]["margin_product"]
    assert table[-1]["train_accuracy"] == 1.0
    assert table[-1]["accepted"] == subject.history[-1]["accepted"]
    assert all(0 < row["smallest_test_distance"] <= row["median_train_distance"] < 5 for row in table)
    assert [figure["id"] for figure in measured.figures] == ["m3-train", "m3-test", "m4-scatter"]
    assert [series["label"] for series in measured.figures[0]["series"]] == [f"epoch {epoch}" for epoch in EPOCHS]
    correlations = {row["of"]: row["value"] for row in measured.rows if row["quantity"].startswith("spearman")}
    assert set(correlations) >= {"median_train_distance", "smallest_test_distance"}
    assert measured.rows == method.measure(subject).rows


def test_distances_do_not_depend_on_the_size_of_the_logits(subject):
    """Cross-entropy has no gradient at logits times 10^4; the margin's has the same direction."""
    images, labels, ids = subject.test.batch(slice(0, 20))
    loud = with_weights(subject.classifier.module.state_dict())
    loud.module[-1].weight.data.mul_(1e4)
    rng = Randomness.of(0, ids, "test")
    plain, scaled = (l2_distances(net, images, labels, rng, 50) for net in (subject.classifier, loud))
    assert torch.allclose(plain, scaled, rtol=0.02)
    assert torch.equal(l2_distances(loud, images, labels, rng, 50, size=7), scaled)


def test_survival_counts_failures_to_the_end_and_misclassified_at_zero():
    curve = survival("x", torch.tensor([0.0, 1.0, 2.0, torch.inf]))
    assert curve["x"] == [0.0, 0.0, 1.0, 2.0]
    assert curve["y"] == [1.0, 0.75, 0.5, 0.25]


def test_lines_leave_out_what_is_undefined_and_keep_both_ends_when_thinned():
    assert line("a", [1, 2, 3], [None, math.inf, 5])["x"] == [3.0]
    thinned = line("a", range(1, 5001), [1.0] * 5000)["x"]
    assert thinned[0] == 1
    assert thinned[-1] == 5000
    assert len(thinned) <= 400
