"""IBP: the loss in closed form, its ramps, and networks that certify."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust.certificates.bounds import Unsupported, margin_bounds
from robust.certificates.certificate import VERIFIED
from robust.certificates.interval import Interval
from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.models.mlp import MLP
from robust.models.model import Inputs
from robust.models.small_cnn import SmallCNN
from robust.objectives.ibp import IBP
from robust.objectives.objective import Batch, Training
from robust.objectives.standard import Standard
from robust.randomness import Randomness
from robust.training import train


def batch_of(progress: float, samples: int = 32) -> Batch:
    images, labels, ids = Digits(train=samples).load("train").batch(slice(None))
    return Batch(images.double(), labels, ids, Randomness.of(0, ids), progress=progress, step=0, epoch=0)


def network(*layers: nn.Module) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), *(layers or (nn.Linear(64, 10),)))).double()


def test_the_loss_on_a_linear_layer_is_what_the_formula_says():
    net, batch = network(), batch_of(0.9)
    inside = 0.1 + 0.8 * batch.images  # no pixel meets the box
    batch = Batch(inside, batch.labels, batch.ids, batch.rng, 0.9, 0, 0)
    loss = IBP(eps="1/20", ratio=1.0, kappa=0.3).loss(net, batch, {})
    logits, weight = net(inside), net.module[1].weight
    worst = (
        logits - logits.gather(1, batch.labels[:, None]) + (weight[batch.labels][:, None] - weight).abs().sum(2) / 20
    )
    expected = 0.3 * F.cross_entropy(logits, batch.labels) + 0.7 * F.cross_entropy(worst, batch.labels)
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-5)


def test_ramps_start_from_clean_training_and_end_at_the_full_radius():
    net, objective = network(), IBP(eps="1/10", kappa=0.5, nominal=0.1, warmup=0.6)
    assert [objective.ramp(p) for p in (0.0, 0.1, 0.35, 0.6, 0.99)] == pytest.approx([0, 0, 0.5, 1, 1])
    early, late = objective.loss(net, batch_of(0.05), {}), objective.loss(net, batch_of(0.9), {})
    torch.testing.assert_close(early.total.detach(), early.terms["natural"])
    torch.testing.assert_close(late.total.detach(), (late.terms["natural"] + late.terms["worst_case"]) / 2)
    with pytest.raises(ValueError, match="not below"):
        IBP(nominal=0.7, warmup=0.6)


def test_the_gradient_reaches_every_weight_of_a_convolutional_network():
    net = SmallCNN(width=2, hidden=8).classifier(Inputs(shape=(1, 8, 8), num_classes=10, mean=(0.3,), std=(0.4,)))
    batch = batch_of(0.9)
    small = Batch(batch.images.float(), batch.labels, batch.ids, batch.rng, 0.9, 0, 0)
    IBP(eps="1/50").loss(net, small, {}).total.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_it_trains_networks_that_certify_where_standard_training_does_not():
    spec = Digits(train=600, select=100, test=200)
    images, labels, ids = spec.load("test").batch(slice(None))
    rng = Randomness.of(0, ids)
    shares = {}
    for objective in (IBP(eps="1/10"), Standard()):
        objective = objective.model_copy(update={"training": Training(epochs=15, batch_size=50, lr=5e-3)})
        trained = train(MLP(hidden=(64,)), objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)
        verdict = Interval(norm="linf", eps="1/10").certify(trained.classifier, images, labels, rng).verdict
        shares[objective.name] = float((verdict == VERIFIED).float().mean())
        if objective.name == "ibp":
            with trained.classifier.frozen():
                selected = objective.selection(trained.classifier, images, labels, rng)
            torch.testing.assert_close(float(selected.float().mean()), shares["ibp"], atol=0.011, rtol=0)
            assert trained.history[-1]["verified"] > 0.1
    assert shares["ibp"] > 0.2
    assert shares["standard"] == 0


def test_batch_statistics_are_refused():
    net, batch = network(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)).train(), batch_of(0.9)
    with pytest.raises(Unsupported, match="BatchNorm in eval mode"):
        IBP(eps="1/10").loss(net, batch, {})


def test_selection_is_the_verified_share():
    net, batch = network(), batch_of(0.0)
    chosen = IBP(eps="1/100").selection(net, batch.images, batch.labels, batch.rng)
    apart = margin_bounds(net, batch.images, batch.labels, 0.01)
    own = torch.arange(10) == batch.labels[:, None]
    assert torch.equal(chosen, ((apart > 0) | own).all(1))
