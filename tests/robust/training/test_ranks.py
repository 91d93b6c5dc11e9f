"""Parts of batches: what every objective promises about them, measured; and what ranks refuse, by name."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robust.batches import Batches
from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.models.mlp import MLP
from robust.objectives.deep_ensemble import DeepEnsembleTraining
from robust.objectives.objective import Objective, Training
from robust.objectives.standard import Standard
from robust.objectives.tisode import TisODE
from robust.objectives.tulip import Tulip
from robust.ranks import ALONE, Ranks, joined
from robust.registry import create, entries
from robust.training import train

NETWORKS = {"deep-ensemble": {"name": "deep-ensemble"}, "tisode": {"name": "tisode", "step_size": 0.5}}
SETTINGS = {"cutmix": {"share": 1}}  # else a batch may stay as it is
OBJECTIVES = [entry.name for entry in entries("objective")]
TWO = [Ranks(0, 2), Ranks(1, 2)]


@pytest.fixture(scope="module")
def splits():
    spec = Digits(train=60, select=20)
    return spec.load("train"), spec.load("select")


def gradients(objective, classifier, batch, state) -> torch.Tensor:
    """The gradient of the batch's loss, as one vector; the state is left as it was."""
    loss = objective.loss(classifier, batch, copy.deepcopy(state)).total
    found = torch.autograd.grad(loss, list(classifier.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def in_parts(batch, batches):
    """The batch as each of two ranks gets it."""
    for ranks in TWO:
        part = ranks.part(len(batch.labels))
        yield replace(
            batch,
            images=batch.images[part],
            labels=batch.labels[part],
            ids=batch.ids[part],
            rng=batch.rng.select(range(part.start, part.stop)),
        )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_of_a_batch_is_the_weighted_mean_of_its_parts_where_the_objective_says_so(name, splits):
    objective = create("objective", {"name": name, **SETTINGS.get(name, {})})
    torch.manual_seed(0)
    built = create("model", NETWORKS.get(name, {"name": "mlp", "hidden": [16]})).classifier(splits[0].inputs())
    classifier = built.double().train()
    batches = Batches(splits[0], 21, 2, 5, "crop", torch.device("cpu"), torch.float64)
    batch = replace(batches.batch(1), progress=0.9, epoch=50)  # past every ramp and late start
    state = objective.start(classifier, batch.images, 5)
    objective.before_training(state, splits[0])
    whole = gradients(objective, classifier, batch, state)
    parts = [
        (len(part.labels) / 21, gradients(objective, classifier, part, state)) for part in in_parts(batch, batches)
    ]
    assert [share for share, _ in parts] == [10 / 21, 11 / 21]
    mean = sum(share * gradient for share, gradient in parts)
    assert torch.allclose(mean, whole, rtol=1e-7, atol=1e-10) == (not objective.whole_batch)


def test_a_rank_gets_its_slice_of_the_same_batch_with_the_same_draws(splits):
    def batches(ranks):
        return Batches(splits[0], 25, 2, 3, "crop-flip", torch.device("cpu"), torch.float32, ranks)

    for step in (0, 1, 3):
        whole = batches(ALONE).batch(step)
        parts = [batches(ranks).batch(step) for ranks in TWO]
        assert [len(part.labels) for part in parts] == [12, 13]
        for field in ("images", "labels", "ids"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
        draws = [part.rng.fork("noise").uniform((3,)) for part in parts]
        assert torch.equal(torch.cat(draws), whole.rng.fork("noise").uniform((3,)))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_cover_a_batch_once(count):
    for samples in (7, 8, 100):
        rows = [range(samples)[Ranks(rank, count).part(samples)] for rank in range(count)]
        assert [row for part in rows for row in part] == list(range(samples))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


SHARED = Training(ranks=2)


@pytest.mark.parametrize("name", ["tulip", "jem", "mixup", "cutmix", "augmix", "lipschitz-excess", "outlier-exposure"])
def test_objectives_that_need_the_whole_batch_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name}: training.ranks must be 1: ranks see a part of each batch, and "):
        create("objective", {"name": name, "training": {"ranks": 2}})


@pytest.mark.parametrize("outer", [lambda inner: TisODE(base=inner, training=SHARED)])
def test_an_objective_around_another_is_refused_for_what_it_holds(outer):
    with pytest.raises(ValueError, match=r"tisode: training.ranks must be 1: .* largest gradient"):
        outer(Tulip())
    with pytest.raises(ValueError, match=r"deep-ensemble: training.ranks must be 1"):
        DeepEnsembleTraining(member=Tulip(), training=SHARED)
    assert isinstance(outer(Standard()), Objective)


def test_networks_that_ranks_cannot_train_are_refused_with_the_remedy(splits):
    two = Ranks(0, 2, torch.device("cpu"))
    mixing = Classifier(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)))
    with pytest.raises(ValueError, match=r"BatchNorm needs the statistics of the whole batch.*or ranks: 1"):
        two.prepared(mixing)
    with pytest.raises(ValueError, match="Dropout draws by place in the batch; set dropout to 0"):
        two.prepared(Classifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.1))))
    assert two.prepared(Classifier(nn.Dropout(0.0))) is not None
    assert ALONE.prepared(mixing) is mixing
    assert isinstance(mixing.module[1], nn.BatchNorm1d)


def test_batch_norm_is_shared_between_gpus():
    network = Classifier(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)))
    names = list(network.module.state_dict())
    prepared = Ranks(1, 2, torch.device("cuda", 1)).prepared(network)
    assert isinstance(prepared.module[1], nn.SyncBatchNorm)
    assert list(prepared.module.state_dict()) == names  # the weights fit the network as others build it


def test_ranks_and_settings_must_agree(splits):
    with pytest.raises(ValueError, match=r"standard: training.ranks is 2, and 1 process\(es\) train; start 2 with"):
        train(MLP(hidden=(4,)), Standard(training=SHARED), *splits, device="cpu")
    with pytest.raises(ValueError, match=r"3 ranks cannot share a batch of 2; lower training.ranks"):
        Ranks(0, 3).check(Standard(training=Training(ranks=3)), 2)


def test_joining_without_torchrun_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start this process with torchrun"):
        joined("cpu").__enter__()
