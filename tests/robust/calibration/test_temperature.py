"""Temperature scaling against a grid search, a known temperature, and degenerate splits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from robust.calibration.temperature import Temperature


def case(temperature=2.5, n=4000, classes=6, seed=0):
    """Logits whose labels are drawn at `temperature`, so that this is what the fit has to find."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, classes)) * 4)
    p = (logits / temperature).softmax(1).numpy()
    labels = torch.tensor([rng.choice(classes, p=row) for row in p])
    return logits, labels


def test_equals_a_scalar_minimiser():
    logits, labels = case()
    found = minimize_scalar(
        lambda t: float(cross_entropy(logits / np.exp(t), labels)),
        bounds=(-4, 4),
        method="bounded",
        options={"xatol": 1e-9},
    )
    fitted = Temperature().fit(logits, labels)
    assert float(fitted["temperature"]) == pytest.approx(np.exp(found.x), abs=1e-3)
    assert not fitted["bounded"]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_finds_the_temperature_that_labels_were_drawn_with(temperature):
    fitted = Temperature().fit(*case(temperature))
    assert float(fitted["temperature"]) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_never_worse_than_one_and_positive(scale):
    logits, labels = case(n=200)
    fitted = Temperature().fit(logits.float() * scale, labels)
    assert fitted["nll_after"] <= fitted["nll_before"] + 1e-12
    assert fitted["temperature"] > 0
    assert fitted["temperature"].dtype == torch.float64


def test_no_prediction_changes_and_rows_sum_to_one():
    logits, labels = case(n=200)
    method = Temperature()
    p = method.transform(logits, method.fit(logits, labels))
    assert (p.argmax(1) == logits.argmax(1)).all()
    assert torch.allclose(p.sum(1), torch.ones(200, dtype=torch.float64), atol=1e-12)


def test_all_correct_stops_at_the_lower_bound_and_says_so():
    logits = torch.eye(4) * 2
    fitted = Temperature(low=0.05).fit(logits, torch.arange(4))
    assert float(fitted["temperature"]) == 0.05
    assert fitted["bounded"] == 1


def test_all_wrong_stops_at_the_upper_bound():
    fitted = Temperature().fit(torch.eye(4) * 2, (torch.arange(4) + 1) % 4)
    assert float(fitted["temperature"]) == 100
    assert fitted["bounded"] == 1


def test_constant_logits_leave_one():
    fitted = Temperature().fit(torch.full((5, 3), 7.0), torch.tensor([0, 1, 2, 0, 0]))
    assert float(fitted["temperature"]) == 1


def test_one_sample_and_shifted_logits():
    logits, labels = case(n=50)
    shifted = Temperature().fit(logits + 1e5, labels)["temperature"]
    assert float(shifted) == pytest.approx(float(Temperature().fit(logits, labels)["temperature"]), abs=1e-5)
    assert Temperature().fit(logits[:1], labels[:1])["temperature"] > 0


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]), "1 of 1 rows"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "0 to 2"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least one label"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "shape"),
    ],
)
def test_bad_input_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        Temperature().fit(logits, labels)
