"""Rivals: attacks that have no business beating a white-box attack on an honest classifier, run on what it left.

Noise, queries, estimated and averaged gradients, the ways round that a defence declares, its train mode, other models.
Each is run on the survivors of the reference alone, so an undefended network costs nothing here, and what a rival
breaks lowers the adaptive number directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from robust.attacks.attack import FixedBudget
from robust.attacks.eot import Averaged
from robust.attacks.nes import NES
from robust.attacks.random_noise import RandomNoise
from robust.attacks.square import Square
from robust.attacks.wrapper import StraightThrough, View
from robust.classifier import Classifier
from robust.diagnostics.determinism import Function, trained
from robust.diagnostics.loops import refined
from robust.diagnostics.probe import Connected, Probe
from robust.diagnostics.verdict import CLEAR, LEVEL, Check, Scope, Verdict, at_least
from robust.losses import margin
from robust.randomness import Randomness

STEPS = 30  # of an ascent along a replaced gradient
QUERIES = 300  # of the random search


# share of the samples that a rival breaks by luck on an honest network; at most 1.6 % was measured
LUCK = 0.02
SERIOUS = 0.05  # a gap beyond this, with 95 % confidence, breaks the number and does not just cast doubt
WIDE = 0.15  # the same for an evaluation of few steps, one loss and one start against everything here
SCOPES: dict[str, Scope] = {"eot": "single draw"}


@dataclass(frozen=True)
class Rival:
    """One such attack: its name, what a win of it says, and how it runs: probe -> broken [N]."""

    name: str
    says: str
    run: Callable[[Probe], Tensor]


class Smoothed(View):
    """Logits averaged over Gaussian noise on the input: a gradient that sees the slope and not the rubble on it.

    E_u f(x + sigma u), `draws` of u in antithetic pairs. Each call draws anew from (rng, call number).
    """

    def __init__(self, inner: Classifier, sigma: float, draws: int, rng: Randomness) -> None:
        super().__init__(inner)
        self.sigma, self.draws, self.rng, self.calls = sigma, draws, rng, 0

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits [N,K]."""
        self.calls += 1
        stream = Randomness.of(self.rng.seed, [0], *self.rng.purpose, "smoothing", self.calls)
        noise = self.sigma * stream.normal((self.draws // 2, 1, *images.shape[1:]), like=images)[0]
        packed = torch.cat([images + noise, images - noise]).flatten(0, 1)
        logits: Tensor = self.inner(packed)
        return logits.view(2 * len(noise), len(images), -1).mean(0)

    def select(self, rows: Tensor) -> Smoothed:
        """The same view: its noise is shared by all rows."""
        return self


def rivals(probe: Probe, function: Function, surrogates: Mapping[str, Classifier]) -> list[Rival]:
    """All rivals that apply to this classifier."""
    found = [
        Rival("random noise", "noise of the same size beats the gradient", _noise),
        Rival("square", "a black-box search beats the gradient", _queries(Square(
            threat=probe.threat, queries=QUERIES, rescale=True))),
        Rival("nes", "a gradient estimated from queries beats the classifier's own", _queries(NES(
            threat=probe.threat, steps=20, directions=10, sigma=_sigma(probe) / 2))),
        Rival("smoothed gradient", "a gradient averaged over input noise beats the plain one", lambda p: _climb(
            p, Smoothed(p.classifier, _sigma(p), 8, p.rng))),
    ]  # fmt: skip
    found.append(Rival("long steps", "a few steps as long as the radius beat many short ones", _stride))
    for name, view in probe.classifier.views().items():
        found.append(
            Rival(name, WAYS.get(name, f"the declared way round ({name}) beats the plain gradient"), _through(view))
        )
    if probe.random:
        found.append(
            Rival(
                "eot",
                "the gradient averaged over the classifier's randomness beats the plain one",
                lambda p: _climb(p, Averaged(p.classifier, 10)),
            )
        )
    if function.mode_gradient > 0.01 or function.mode_logits > function.tolerance:
        found.append(
            Rival("train mode", "the gradient of the classifier told it is being trained beats the other", _told)
        )
    for change, twin in refined(probe.classifier):
        found.append(
            Rival(
                f"solver, {change}", f"the gradient of a copy with {change} beats the classifier's own", _through(twin)
            )
        )
    for name, surrogate in surrogates.items():
        found.append(
            Rival(f"transfer from {name}", f"images crafted on {name} beat the gradient", _transfer(surrogate))
        )
    return found


WAYS = {
    "bpda": "the declared backward rule (BPDA) beats the plain gradient",
    "substitute": "the gradient of the declared substitute beats the plain one",
    "through": "the gradient taken through the test-time loop beats the one around it",
}


def _sigma(probe: Probe) -> float:
    """Noise per pixel that makes up a quarter of the ball."""
    size = probe.images[0].numel()
    return 0.25 * probe.threat.radius / {"linf": 1.0, "l2": size**0.5, "l1": float(size)}[probe.threat.norm]


def _noise(probe: Probe) -> Tensor:
    attack, broken = RandomNoise(threat=probe.threat), torch.zeros_like(probe.labels, dtype=torch.bool)
    for draw in range(10):
        rng = probe.rng.fork("noise", draw)
        broken |= probe.broken(attack.perturb(probe.classifier, probe.images, probe.labels, rng))
    return broken


def _queries(attack: FixedBudget) -> Callable[[Probe], Tensor]:
    def run(probe: Probe) -> Tensor:
        rng = probe.rng.fork(attack.name)
        return probe.broken(attack.perturb(probe.classifier, probe.images, probe.labels, rng))

    return run


def _stride(probe: Probe) -> Tensor:
    """Steps that jump over the rubble: the whole radius at first, then half of it and a quarter."""
    broken = torch.zeros_like(probe.labels, dtype=torch.bool)
    for restart, share in enumerate((1.0, 0.5, 0.25)):
        broken |= probe.climb(margin, 10, restart=10 + restart, step_size=share * probe.threat.radius).broken
    return broken


def _climb(probe: Probe, view: Classifier) -> Tensor:
    return probe.climb(margin, STEPS, view=view).broken


def _through(view: Classifier) -> Callable[[Probe], Tensor]:
    def run(probe: Probe) -> Tensor:
        with view.frozen():
            return _climb(probe, StraightThrough(probe.classifier, Connected(view)))

    return run


def _told(probe: Probe) -> Tensor:
    return _climb(probe, StraightThrough(probe.classifier, Connected(trained(probe.classifier))))


def _transfer(surrogate: Classifier) -> Callable[[Probe], Tensor]:
    def run(probe: Probe) -> Tensor:
        with surrogate.frozen():
            return _climb(probe, surrogate)

    return run


def fight(probe: Probe, reference: Tensor, entrants: list[Rival]) -> dict[str, Tensor]:
    """Every rival on the survivors of the reference: name -> broken [N], False where the reference won already."""
    wins = {}
    for rival in entrants:
        broken = torch.zeros_like(reference)
        if not reference.all():
            broken[~reference] = rival.run(probe.select(~reference))
        wins[rival.name] = broken
    return wins


def checks(
    wins: Mapping[str, Tensor], reference: Tensor, probe: Probe, model: str, says: Mapping[str, str]
) -> list[Check]:
    """One check a rival, Bonferroni-corrected over them, and the adaptive accuracy as a row that always passes."""
    n, threat = len(reference), str(probe.threat)
    left = 1 - float(reference.double().mean())
    adaptive = 1 - float(torch.stack([reference, *wins.values()]).any(0).double().mean())
    found = []
    for name, mask in wins.items():
        lost = int(mask.sum())
        p_value = float(stats.binom.sf(lost - 1, n, LUCK))
        failed = p_value < LEVEL / len(wins) and lost / n > CLEAR
        severity: Verdict = "broken" if at_least(lost, n) > SERIOUS else "suspect"
        reason = (
            f"{says[name]}: it breaks {lost} of the {n - int(reference.sum())} images that 40 steps, two losses and "
            f"three starts leave ({threat}); the adaptive attacks leave {100 * adaptive:.1f} % instead of "
            f"{100 * left:.1f} % of the images that were right when clean"
        )
        if severity == "broken":
            reason = f"broken: {reason}"
        found.append(Check(model, "", f"not beaten by {name}", not failed, lost / n, LUCK, reason, severity, threat,
                           SCOPES.get(name, "own gradient")))  # fmt: skip
    row = Check(model, "", "adaptive accuracy of the diagnosis", True, adaptive, left, "", threat=threat)
    return [*found, row]
