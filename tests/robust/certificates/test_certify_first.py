"""Certificate first: proven samples cost no attack, and nothing but the cost changes."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from benchmarks.foreign_nets import load_net
from robust.attacks.fgsm import FGSM
from robust.attacks.pgd import PGD
from robust.certificates.first import screen_for
from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.datasets.mnist import MNIST
from robust.defences.input_quantisation import InputQuantisation
from robust.evaluation import evaluate
from robust.judging import judge
from robust.models.mlp import MLP
from robust.objectives.ibp import IBP
from robust.objectives.objective import Training
from robust.training import train

ATTACK = PGD(eps="1/20", steps=20)


@dataclass(frozen=True)
class Problem:
    net: Classifier
    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor


@pytest.fixture(scope="module")
def problem() -> Problem:
    spec = Digits(train=600, select=100, test=200)
    objective = IBP(eps="1/20", training=Training(epochs=15, batch_size=50, lr=5e-3))
    trained = train(MLP(hidden=(64,)), objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)
    return Problem(trained.classifier, *spec.load("test").batch(slice(None)))


def test_proven_samples_cost_nothing_and_no_verdict_changes(problem):
    with_it = judge(problem.net, problem.images, problem.labels, problem.ids, ATTACK, 0)
    without = judge(problem.net, problem.images, problem.labels, problem.ids, ATTACK, 0, certify_first=False)
    assert (with_it.rows["correct"] == without.rows["correct"]).all()
    proven = (with_it.rows["certificate"] == "verified").to_numpy()
    assert proven.mean() > 0.3
    assert with_it.rows["radius"][proven].tolist() == [0.05] * proven.sum()
    assert with_it.rows["radius"][~proven].isna().all()
    assert with_it.rows["forward"][proven].tolist() == [1] * proven.sum()  # the look at the clean image
    assert not with_it.rows["backward"][proven].any()
    assert not with_it.rows["success"][proven].any()
    rows = torch.tensor(proven)
    assert torch.equal(with_it.images[rows], problem.images[rows])
    torch.testing.assert_close(with_it.images[~rows], without.images[~rows])  # the others are attacked as ever
    assert "certificate" not in without.rows


def test_neither_batch_nor_shard_shows_in_the_ledger(problem):
    ledgers = [
        evaluate(problem.net.double(), problem.images, problem.labels, [ATTACK], batch_size=b, shard_size=s).rows
        for b, s in ((250, 1000), (7, 31))
    ]
    problem.net.float()
    columns = ["sample", "correct", "success", "forward", "backward", "certificate", "radius"]
    assert ledgers[0].select(columns).equals(ledgers[1].select(columns))
    assert "verified" in ledgers[0]["certificate"].to_pylist()


def test_where_asking_is_dear_hopeless_or_impossible_nobody_asks(problem):
    shape = (1, 8, 8)
    assert screen_for(problem.net, shape, ATTACK) is not None
    assert screen_for(problem.net, shape, FGSM(eps="1/20")) is None  # two passes
    assert screen_for(problem.net, shape, PGD(eps="9/10", steps=20)) is None  # hopeless
    assert screen_for(InputQuantisation().wrap(problem.net), shape, ATTACK) is None
    assert screen_for(Classifier(nn.Sequential(nn.Flatten(), nn.Softmax(1))), shape, ATTACK) is None
    noisy = Classifier(lambda x: problem.net(x) + torch.randn(1, 10))
    assert screen_for(noisy, shape, ATTACK) is None


@pytest.mark.data("nets", "mnist")
def test_on_a_provably_trained_network_of_others():
    net = Classifier(load_net("mnist_wong_kolter.pth"), num_classes=10)
    images, labels, ids = MNIST(test=100).load("test").batch(slice(None))
    attack = PGD(eps="1/100", steps=10)
    with_it = judge(net, images, labels, ids, attack, 0).rows
    without = judge(net, images, labels, ids, attack, 0, certify_first=False).rows
    assert (with_it["correct"] == without["correct"]).all()
    assert with_it["backward"].sum() < 0.9 * without["backward"].sum()
