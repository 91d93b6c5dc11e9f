import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch.nn import functional as F

from robust.log_losses import inverse_loss, log_losses, log_softplus, mean_log

LOSSES = ("cross-entropy", "exponential", "logistic")


def exact(row, label, loss):
    """log l(z, y) in 1,200 digits."""
    mp.dps = 1200
    gaps = [mpf(z) - mpf(row[label]) for j, z in enumerate(row) if j != label]
    if loss == "cross-entropy":
        return float(mp.log(mp.log1p(sum(mp.exp(u) for u in gaps))))
    each = mp.exp if loss == "exponential" else (lambda u: mp.log1p(mp.exp(u)))
    return float(mp.log(sum(each(u) for u in gaps)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.01, 1.0, 20.0, 40.0, 700.0, 2000.0, 1e5])
def test_equals_the_exact_logarithm_far_beyond_the_smallest_double(loss, size):
    row = [size, 0.3, -0.2, 0.4]  # at 2000 the loss is 10^-868
    found = log_losses(torch.tensor([row], dtype=torch.float64), torch.tensor([0]), loss)
    mp.dps = 60 if size > 1e4 else 1200
    assert float(found) == pytest.approx(exact(row, 0, loss) if size < 1e4 else -size + 1.3055, rel=1e-5)
    if size < 1e4:
        assert float(found) == pytest.approx(exact(row, 0, loss), rel=1e-13)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=3, max_size=5), st.sampled_from(LOSSES))
def test_agrees_with_mpmath_on_any_logits(row, loss):
    found = log_losses(torch.tensor([row], dtype=torch.float64), torch.tensor([1]), loss)
    assert float(found) == pytest.approx(exact(row, 1, loss), rel=1e-12, abs=1e-12)


def test_is_the_logarithm_of_torchs_cross_entropy_and_of_the_binary_losses():
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    assert torch.allclose(log_losses(logits, labels).exp(), F.cross_entropy(logits, labels, reduction="none"))
    two = labels % 2
    assert torch.allclose(log_losses(logits[:, :2], two, "logistic"), log_losses(logits[:, :2], two))
    gap = logits[:, 0] - logits[:, 1]
    assert torch.allclose(log_losses(logits[:, :2], torch.zeros_like(two), "exponential"), -gap)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_the_relative_loss_are_finite_and_right_at_ten_to_the_minus_870(loss):
    logits = torch.tensor([[2000.0, 1.0, 0.0], [2001.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(2, dtype=torch.int64)
    logs = log_losses(logits, labels, loss)
    assert float(mean_log(logs.detach())) / math.log(10) < -860
    (gradient,) = torch.autograd.grad((logs - logs[0].detach()).exp().sum(), logits)
    # all three losses are sum_j exp(u_j) out here: the first sample's gradient is its softmax over the other classes
    others = torch.softmax(torch.tensor([1.0, 0.0], dtype=torch.float64), 0)
    assert torch.allclose(gradient[0], torch.cat([torch.tensor([-1.0], dtype=torch.float64), others]), rtol=1e-10)
    assert gradient.isfinite().all()


def test_log_softplus_is_smooth_where_its_branches_meet():
    values = torch.tensor([-30.0 - 1e-9, -30.0 + 1e-9, -800.0, 60.0, 0.0], dtype=torch.float64, requires_grad=True)
    found = log_softplus(values)
    found.sum().backward()
    assert torch.allclose(found[:2], torch.tensor([-30.0, -30.0], dtype=torch.float64))
    expected = torch.tensor([1.0, 1.0, 1.0, 1 / 60.0, 0.5 / math.log(2)], dtype=torch.float64)
    assert torch.allclose(values.grad, expected)


@pytest.mark.parametrize("log_sum", [-3000.0, -50.0, -30.1, -29.9, -1.0, math.log(math.log(2)), 0.5, 5.0])
def test_inverse_loss_is_the_inverse(log_sum):
    mp.dps = 1500
    assert inverse_loss(log_sum) == pytest.approx(float(-mp.log(mp.expm1(mp.exp(log_sum)))), rel=1e-12, abs=1e-12)
    assert inverse_loss(log_sum, "exponential") == -log_sum
    # one pair alone with that margin has that loss
    pair = torch.tensor([[inverse_loss(log_sum), 0.0]], dtype=torch.float64)
    assert float(log_losses(pair, torch.tensor([0]))) == pytest.approx(log_sum, rel=1e-9, abs=1e-9)
