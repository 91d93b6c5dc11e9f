"""Fixed-budget attacks against the same attack of Foolbox and torchattacks: ours leaves no more samples standing."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robust import torchvision
from robust.judging import judge
from robust.registry import create

COUNT = 100


def torchattacks() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchvision.load()
        return importlib.import_module("torchattacks")


def peer(name: str, **settings: Any) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    def run(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return getattr(torchattacks(), name)(net, **settings)(images, labels)

    return run


def foolbox(name: str, eps: float, **settings: Any) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    def run(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        import foolbox

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = foolbox.PyTorchModel(net, bounds=(0, 1))
            attack = getattr(foolbox.attacks, name)(**settings)
            return attack(model, images, labels, epsilons=eps)[1]

    return run


# ours, the peer, its call
CASES = {
    "foolbox": [
        ({"name": "fgsm", "eps": "0.08"}, foolbox("LinfFastGradientAttack", 0.08)),
        ({"name": "fgsm", "eps": "0.5", "norm": "l2"}, foolbox("L2FastGradientAttack", 0.5)),
        ({"name": "bim", "eps": "0.08", "steps": 10}, foolbox("LinfBasicIterativeAttack", 0.08, steps=10)),
        ({"name": "pgd", "eps": "0.08", "steps": 20}, foolbox("LinfPGD", 0.08, steps=20)),
        ({"name": "pgd", "eps": "0.5", "norm": "l2", "steps": 20}, foolbox("L2PGD", 0.5, steps=20)),
        ({"name": "pgd", "eps": "2", "norm": "l1", "steps": 20}, foolbox("L1PGD", 2.0, steps=20)),
    ],
    "torchattacks": [
        ({"name": "pgd", "eps": "0.08", "steps": 20}, peer("PGD", eps=0.08, alpha=0.01, steps=20)),
        ({"name": "apgd-ce", "eps": "0.08", "steps": 20}, peer("APGD", eps=0.08, steps=20, loss="ce")),
        ({"name": "apgd-dlr", "eps": "0.5", "norm": "l2"}, peer("APGD", norm="L2", eps=0.5, steps=100, loss="dlr")),
        ({"name": "apgd-t", "eps": "0.08", "steps": 20}, peer("APGDT", eps=0.08, steps=20)),
        ({"name": "square", "eps": "0.1", "queries": 300, "rescale": True}, peer("Square", eps=0.1, n_queries=300)),
        (
            {"name": "square", "eps": "1", "norm": "l2", "queries": 300, "rescale": True},
            peer("Square", norm="L2", eps=1.0, n_queries=300),
        ),
        ({"name": "fab", "eps": "0.08", "steps": 20}, peer("FAB", eps=0.08, steps=20, n_classes=10)),
        (
            {"name": "fab-t", "eps": "0.5", "norm": "l2", "steps": 20},
            peer("FAB", norm="L2", eps=0.5, steps=20, multi_targeted=True, n_classes=10),
        ),
    ],
}
INSTALLED = [
    pytest.param(ours, theirs, id=f"{ours['name']}-{ours.get('norm', 'linf')}-{library}")
    for library, cases in CASES.items()
    if importlib.util.find_spec(library)
    for ours, theirs in cases
]


@pytest.mark.parametrize(("ours", "theirs"), INSTALLED)
@pytest.mark.filterwarnings("ignore")
def test_leaves_no_more_standing_than_the_peer(digits_net, ours, theirs):
    classifier, images, labels = digits_net
    images, labels = images[:COUNT], labels[:COUNT]
    attack = create("attack", ours)
    standing = judge(classifier, images, labels, torch.arange(COUNT), attack, seed=0).rows["correct"].to_numpy()
    with classifier.frozen():
        found = theirs(classifier, images, labels).detach()
        inside = attack.threat.contains(found.clamp(0, 1), images) | (attack.threat.distance(found, images) == 0)
        theirs_standing = ((classifier(found).argmax(1) == labels) | ~inside).numpy()
    ours_alone = int((standing & ~theirs_standing).sum())
    theirs_alone = int((theirs_standing & ~standing).sum())
    # a paired test: ours may lose only by what a fair coin over the disagreements would allow (two standard deviations)
    assert ours_alone - theirs_alone <= 2 * math.sqrt(ours_alone + theirs_alone)
    assert standing.mean() < 0.9
