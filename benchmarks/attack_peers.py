"""The same named attack at the same budget, by this package and by the peers that are installed.

Each function returns {attack: {library: run}} where `run(images, labels)` gives images [N,1,28,28]. What they found is
judged by the benchmark, never by the library. Peers that are not installed (extra `bench`) are left out.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robust import torchvision
from robust.attacks.attack import SmallestDistance
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.registry import create

Run = Callable[[Tensor, Tensor], Tensor]
Runs = dict[str, dict[str, Run]]


@dataclass(frozen=True)
class Budget:
    """What every contestant may spend: steps and queries an image, and CW's rounds; l2 and linf alike."""

    pgd: int = 40
    step_size: float = 0.01
    apgd: int = 50
    queries: int = 1000
    distance: int = 100
    deepfool: int = 50
    cw: int = 100
    searches: int = 6


def fixed_budget(net: nn.Module, eps: float, budget: Budget, full: bool) -> Runs:
    """FGSM, PGD, APGD-CE, APGD-DLR and Square in linf; AutoAttack standard where `full`."""
    pgd = {"steps": budget.pgd, "step_size": budget.step_size}
    settings: dict[str, dict[str, Any]] = {
        "fgsm": {},
        "pgd": pgd,
        "apgd-ce": {"steps": budget.apgd},
        "apgd-dlr": {"steps": budget.apgd},
        "square": {"queries": budget.queries, "rescale": True},  # as the peers do
    }
    if full:
        settings["autoattack"] = {}
    runs = {name: {"ours": _ours(net, {"name": name, "eps": eps, **more})} for name, more in settings.items()}
    for library, brought in (("torchattacks", _torchattacks), ("foolbox", _foolbox), ("art", _art)):
        if importlib.util.find_spec(library):
            for name, run in brought(net, eps, budget).items():
                if name in runs:
                    runs[name][library] = run
    return runs


def smallest_distance(net: nn.Module, budget: Budget) -> Runs:
    """DDN, FMN (l2, linf), CW and DeepFool (l2, linf); the part of a name after `/` is the norm."""
    cw = {"steps": budget.cw, "searches": budget.searches}
    settings: dict[str, dict[str, Any]] = {
        "ddn/l2": {"steps": budget.distance},
        "fmn/l2": {"steps": budget.distance},
        "fmn/linf": {"steps": budget.distance},
        "cw/l2": cw,
        "deepfool/l2": {"steps": budget.deepfool},
        "deepfool/linf": {"steps": budget.deepfool},
    }
    runs = {}
    for name, more in settings.items():
        attack, norm = name.split("/")
        runs[name] = {"ours": _ours(net, {"name": attack, "norm": norm, **more})}
    for library, brought in (("torchattacks", _torchattacks_distance), ("foolbox", _foolbox_distance)):
        if importlib.util.find_spec(library):
            for name, run in brought(net, budget).items():
                runs[name][library] = run
    return runs


def _ours(net: nn.Module, settings: dict[str, Any]) -> Run:
    classifier, attack = Classifier(net, num_classes=10), create("attack", settings)

    def run(images: Tensor, labels: Tensor) -> Tensor:
        rng = Randomness.of(0, range(len(labels)), attack.name)
        found: Tensor
        if isinstance(attack, SmallestDistance):
            found = attack.minimise(classifier, images, labels, rng)
        else:
            found = getattr(attack, "perturb")(classifier, images, labels, rng)  # noqa: B009
        return found

    return run


def _torchattacks(net: nn.Module, eps: float, budget: Budget) -> dict[str, Run]:
    torchvision.load()
    theirs = importlib.import_module("torchattacks")
    return {
        "fgsm": theirs.FGSM(net, eps=eps),
        "pgd": theirs.PGD(net, eps=eps, alpha=budget.step_size, steps=budget.pgd),
        "apgd-ce": theirs.APGD(net, norm="Linf", eps=eps, steps=budget.apgd, n_restarts=1, loss="ce"),
        "apgd-dlr": theirs.APGD(net, norm="Linf", eps=eps, steps=budget.apgd, n_restarts=1, loss="dlr"),
        "square": theirs.Square(net, norm="Linf", eps=eps, n_queries=budget.queries, n_restarts=1),
        "autoattack": theirs.AutoAttack(net, norm="Linf", eps=eps, version="standard", n_classes=10),
    }


def _foolbox(net: nn.Module, eps: float, budget: Budget) -> dict[str, Run]:
    foolbox = importlib.import_module("foolbox")
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    pgd = foolbox.attacks.LinfPGD(abs_stepsize=budget.step_size, steps=budget.pgd)
    return {
        "fgsm": lambda x, y: foolbox.attacks.LinfFastGradientAttack()(model, x, y, epsilons=eps)[1],
        "pgd": lambda x, y: pgd(model, x, y, epsilons=eps)[1],
    }


def _art(net: nn.Module, eps: float, budget: Budget) -> dict[str, Run]:
    evasion = importlib.import_module("art.attacks.evasion")
    estimator = importlib.import_module("art.estimators.classification").PyTorchClassifier(
        model=net, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, clip_values=(0.0, 1.0)
    )

    def run(kind: str, **settings: Any) -> Run:
        attack = getattr(evasion, kind)(estimator, eps=eps, **settings)
        return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    def apgd(loss: str) -> Run:
        start = {"eps_step": 2 * eps, "max_iter": budget.apgd, "nb_random_init": 1, "loss_type": loss}
        return run("AutoProjectedGradientDescent", batch_size=1000, verbose=False, **start)

    steps = {"eps_step": budget.step_size, "max_iter": budget.pgd, "num_random_init": 1}
    return {
        "fgsm": run("FastGradientMethod", batch_size=1000),
        "pgd": run("ProjectedGradientDescent", batch_size=1000, verbose=False, **steps),
        "apgd-ce": apgd("cross_entropy"),
        "apgd-dlr": apgd("difference_logits_ratio"),
        "square": run("SquareAttack", max_iter=budget.queries, nb_restarts=1, batch_size=1000, verbose=False),
    }


def _torchattacks_distance(net: nn.Module, budget: Budget) -> dict[str, Run]:
    torchvision.load()
    theirs = importlib.import_module("torchattacks")
    return {
        # one constant, no search: it gets all rounds' steps in one
        "cw/l2": theirs.CW(net, c=1, kappa=0, steps=budget.cw * budget.searches, lr=0.01),
        "deepfool/l2": theirs.DeepFool(net, steps=budget.deepfool, overshoot=0.02),
    }


def _foolbox_distance(net: nn.Module, budget: Budget) -> dict[str, Run]:
    foolbox = importlib.import_module("foolbox")
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attacks = foolbox.attacks
    made = {
        "ddn/l2": attacks.DDNAttack(steps=budget.distance),
        "fmn/l2": attacks.L2FMNAttack(steps=budget.distance),
        "fmn/linf": attacks.LInfFMNAttack(steps=budget.distance),
        "cw/l2": attacks.L2CarliniWagnerAttack(steps=budget.cw, binary_search_steps=budget.searches),
        "deepfool/l2": attacks.L2DeepFoolAttack(steps=budget.deepfool, candidates=10),
        "deepfool/linf": attacks.LinfDeepFoolAttack(steps=budget.deepfool, candidates=10),
    }

    def run(attack: Any) -> Run:
        return lambda x, y: attack(model, x, y, epsilons=None)[1]

    return {name: run(attack) for name, attack in made.items()}
