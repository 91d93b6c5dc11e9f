"""Calibrators beyond temperature: against scikit-learn, against each other, and at the edges."""

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from robust.calibration.beta import Beta
from robust.calibration.calibrator import mean_nll
from robust.calibration.ensemble_temperature import EnsembleTemperature
from robust.calibration.histogram_binning import HistogramBinning
from robust.calibration.isotonic import Isotonic
from robust.calibration.matrix import Matrix
from robust.calibration.metrics import ece, ece_classwise, nll
from robust.calibration.temperature import Temperature
from robust.calibration.vector import Vector

ALL = [Temperature(), Vector(), Matrix(), Isotonic(), HistogramBinning(), Beta(), EnsembleTemperature()]
CONVEX = [Vector(), Matrix(), EnsembleTemperature()]
names = pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)


def overconfident(n=3000, classes=4, seed=0, sharpness=3.0):
    """Logits three times too large, one class too likely, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, classes)) * 1.5
    p = torch.tensor(truth).softmax(1).numpy()
    labels = torch.tensor([rng.choice(classes, p=row) for row in p])
    return torch.tensor(truth * sharpness + np.eye(classes)[0]).float(), labels


@names
def test_lowers_calibration_error_on_fresh_data(method):
    fitted = method.fit(*overconfident(seed=0))
    logits, labels = overconfident(seed=1)
    p = method.transform(logits, fitted)
    before = logits.double().softmax(1)
    assert p.dtype == torch.float64
    assert torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-9)
    assert ece(p, labels) < ece(before, labels) / 3
    assert nll(p, labels) < nll(before, labels)


@names
def test_one_class_absent_all_correct_all_wrong_and_one_sample(method):
    logits, labels = overconfident(n=60)
    for z, y in [
        (logits, labels.clamp(max=2)),
        (logits, logits.argmax(1)),
        (logits, logits.argmin(1)),
        (logits[:1], labels[:1]),
        (torch.eye(4) * 1e4, torch.arange(4)),  # confidence exactly 0 and 1
        (torch.zeros(8, 4), torch.arange(4).repeat(2)),
    ]:
        p = method.transform(logits, method.fit(z, y))
        assert p.isfinite().all()
        assert torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-9)


@names
def test_nan_is_refused(method):
    with pytest.raises(ValueError, match="NaN"):
        method.fit(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))


@pytest.mark.parametrize("method", CONVEX, ids=lambda m: m.name)
@pytest.mark.parametrize("n", [5, 40, 1000])
def test_never_worse_than_temperature_on_its_own_split(method, n):
    logits, labels = overconfident(n=n)
    temperature = Temperature().fit(logits, labels)["nll_after"]
    fitted = method.fit(logits, labels)
    assert fitted["nll_after"] <= temperature + 1e-6
    assert fitted["nll_after"] <= fitted["nll_before"]
    assert nll(method.transform(logits, fitted), labels) == pytest.approx(float(fitted["nll_after"]), abs=1e-6)


def test_matrix_without_penalty_equals_multinomial_regression():
    logits, labels = overconfident()
    fitted = Matrix(off_diagonal_penalty=0, bias_penalty=0).fit(logits, labels)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000).fit(logits.double().numpy(), labels.numpy())
    expected = model.predict_proba(logits.double().numpy())
    assert np.abs(Matrix().transform(logits, fitted).numpy() - expected).max() < 1e-3
    assert nll(expected, labels) == pytest.approx(float(fitted["nll_after"]), abs=1e-6)


def test_matrix_penalty_shrinks_off_diagonal_weights_to_vector_scaling():
    logits, labels = overconfident()
    off = ~torch.eye(4, dtype=torch.bool)
    sizes = [Matrix(off_diagonal_penalty=v).fit(logits, labels)["weight"][off].square().sum() for v in (1e-3, 0.1, 10)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 1e-3
    held = Matrix(off_diagonal_penalty=1e6, bias_penalty=0).fit(logits, labels)
    assert held["nll_after"] == pytest.approx(float(Vector(bias_penalty=0).fit(logits, labels)["nll_after"]), abs=1e-5)


def test_matrix_penalty_helps_on_a_small_split():
    small, fresh = overconfident(n=60, classes=6, seed=3), overconfident(n=1000, classes=6, seed=4)
    scores = {}
    for penalty in (0.0, 1.0):
        method = Matrix(off_diagonal_penalty=penalty, bias_penalty=penalty)
        scores[penalty] = nll(method.transform(fresh[0], method.fit(*small)), fresh[1])
    assert scores[1.0] < scores[0.0]


def test_isotonic_equals_scikit_learn_class_by_class():
    logits, labels = overconfident(n=400)
    fresh, _ = overconfident(n=100, seed=2)
    p, q = logits.double().softmax(1).numpy(), fresh.double().softmax(1).numpy()
    maps = [IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[:, k], labels == k) for k in range(4)]
    expected = np.stack([m.predict(q[:, k]) for k, m in enumerate(maps)], 1).clip(1e-12)
    expected /= expected.sum(1, keepdims=True)
    method = Isotonic()
    assert np.abs(method.transform(fresh, method.fit(logits, labels)).numpy() - expected).max() < 1e-9


def test_beta_equals_logistic_regression_on_its_two_features():
    logits, labels = overconfident(n=2000)
    p = logits.double().softmax(1)[:, 1].clamp(1e-12, 1 - 1e-12).numpy()
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000)
    model.fit(np.stack([np.log(p), -np.log1p(-p)], 1), labels == 1)
    fitted = Beta().fit(logits, labels)
    assert (model.coef_ > 0).all()  # so the sign constraint is idle
    assert [float(fitted[x][1]) for x in "ab"] == pytest.approx(model.coef_[0].tolist(), abs=1e-3)
    assert float(fitted["c"][1]) == pytest.approx(model.intercept_[0], abs=1e-3)


def test_beta_slopes_are_never_negative_so_order_is_kept():
    logits, _ = overconfident(n=200)
    fitted = Beta().fit(logits, logits.argmin(1))
    assert (fitted["a"] >= 0).all()
    assert (fitted["b"] >= 0).all()


def test_histogram_binning_by_hand():
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]).log()
    method = HistogramBinning(bins=2)
    fitted = method.fit(logits, torch.tensor([0, 1, 1]))
    assert fitted["frequency"].tolist() == [[0, 0.5], [0.5, 1]]
    assert method.transform(logits, fitted)[0].tolist() == pytest.approx([0.5, 0.5])
    assert HistogramBinning(bins=4).fit(logits, torch.tensor([0, 1, 1]))["frequency"][0, 1] == 0.375  # empty bin


def test_histogram_binning_calibrates_every_class_on_its_own_split():
    logits, labels = overconfident()
    method = HistogramBinning()
    p = method.transform(logits, method.fit(logits, labels))
    assert ece_classwise(p, labels) < 0.2 * ece_classwise(logits.double().softmax(1), labels)


def test_ensemble_temperature_uses_the_uniform_member_where_labels_are_noise():
    logits, _ = overconfident()
    labels = torch.arange(len(logits)) % 4
    weights = EnsembleTemperature().fit(logits, labels)["weights"]
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights >= 0).all()
    method = EnsembleTemperature()
    p = method.transform(logits, method.fit(logits, labels))
    assert float(p.amax(1).mean()) < 0.3


def test_vector_recovers_class_bias_that_temperature_cannot():
    logits, labels = overconfident()
    fitted = Vector().fit(logits, labels)
    assert fitted["bias"][0] < fitted["bias"][1:].min()  # class 0 had been made too likely
    scaled = logits.double() * fitted["weight"] + fitted["bias"]
    assert mean_nll(scaled, labels) < Temperature().fit(logits, labels)["nll_after"] - 1e-3
