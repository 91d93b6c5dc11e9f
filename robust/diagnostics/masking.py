"""Masking: can a robust accuracy of this classifier be believed? All checks that need the model, by threat model.

`diagnose` takes a hundred or so correctly classified images and measures whether the classifier is one function,
whether its gradients are the slopes an attack meets, whether attacks gain from budget, and whether anything beats them
that should not (Athalye et al. 2018, arXiv 1802.00420; Carlini et al. 2019, arXiv 1902.06705; Tramer et al. 2020, arXiv
2002.08347). It sees logits, gradients and what a defence declares; names of classes are never read. Every check comes
back as a row with its number, its bound and its reason, and the curves behind them are data for the report.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from robust.attacks.attack import Attack, fooled
from robust.classifier import Classifier
from robust.corruptions.corruption import Corruption
from robust.diagnostics import budget, curves, determinism, gradients, loops, rivals
from robust.diagnostics.probe import Paired, Probe
from robust.diagnostics.verdict import Check, Verdict, at_least, strength
from robust.numerics import Passes
from robust.randomness import Randomness
from robust.threat import ThreatModel

logger = logging.getLogger("robust.diagnostics")

FEWEST = 20  # correct samples below which no comparison can say anything


@dataclass(frozen=True)
class Diagnosis:
    """What the checks found on one model.

    Attributes:
        model: its id.
        checks: rows without an evaluation; `robust.diagnostics.verdict.attached` hands them out.
        curves: line figures in the format of the report, ids prefixed by the model.
        broken_ids: threat -> attack -> ids that this diagnostic attack broke.
        samples: threat -> ids looked at.
        forward, backward: passes per sample, mean.
    """

    model: str
    checks: list[Check] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    broken_ids: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    samples: dict[str, list[int]] = field(default_factory=dict)
    forward: float = 0.0
    backward: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data, JSON-safe."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Diagnosis:
        """What `to_json` wrote."""
        return cls(**{**data, "checks": [Check(**row) for row in data["checks"]]})


def diagnose(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    threats: Sequence[ThreatModel],
    seed: int,
    *,
    model: str = "model",
    samples: int = 128,
    surrogates: Mapping[str, Classifier] | None = None,
) -> Diagnosis:
    """Measure every check in every threat model that has a radius.

    Args:
        classifier: images in [0,1] -> logits; its mode and flags are restored, its buffers put back.
        images: [N,C,H,W] in [0,1]; the first `samples` that are classified correctly are used.
        labels: [N] int64. ids: [N], unique; they key all draws.
        threats: balls to look at; those without a radius, or of radius 0, are left out.
        seed: 0 <= seed < 2**53.
        model: the id written into the rows.
        samples: how many; about 1,500 forward and 800 backward passes for each that withstands everything.
        surrogates: other models for transfer attacks.
    """
    with classifier.frozen(), _restored(classifier):
        device, dtype = classifier.device, classifier.dtype
        x, y = images.to(device, dtype), labels.to(device)
        with torch.no_grad():
            logits = torch.cat([classifier(part) for part in x.split(250)]) if len(x) else x.new_zeros(0, 2)
        chosen = (~fooled(logits, y) & ~logits.isnan().any(1)).nonzero().flatten()[:samples]
        found = Diagnosis(model)
        if len(chosen) < FEWEST or len(logits.argmax(1).unique()) == 1:
            return replace(found, checks=[_nothing_to_say(model, len(chosen), logits)])
        passes = Passes(classifier)
        rng = Randomness.of(seed, ids[chosen.cpu()], "masking")
        widest = ThreatModel(norm="linf", eps=Fraction(1))
        first = Probe(classifier, x[chosen], y[chosen], rng, widest)
        function = determinism.examine(first)
        random, coupled = function.twice > function.tolerance, function.company > function.tolerance
        body = Paired(classifier) if coupled else classifier
        first = replace(first, classifier=body, random=random, coupled=coupled)
        found.checks.extend(determinism.checks(function, classifier.random, model))
        found.checks.extend(loops.checks(classifier, x[chosen], coupled and not random, model))
        for threat in dict.fromkeys(t for t in threats if t.eps):
            _examine(found, replace(first, threat=threat), function, surrogates or {})
        passes.remove()
    return replace(found, forward=passes.forward / len(chosen), backward=passes.backward / len(chosen))


def _examine(
    found: Diagnosis, probe: Probe, function: determinism.Function, surrogates: Mapping[str, Classifier]
) -> None:
    """The checks of one threat model, added to `found`."""
    name, ids = str(probe.threat), list(probe.rng.ids)
    slopes = gradients.examine(probe)
    spent = budget.spend(probe)
    entrants = rivals.rivals(probe, function, surrogates)
    wins = rivals.fight(probe, spent.reference, entrants)
    logger.debug(
        "%s: reference leaves %d of %d, rivals broke %s", name, int((~spent.reference).sum()), len(probe), wins
    )
    found.checks.extend(gradients.checks(slopes, probe, found.model))
    found.checks.extend(budget.checks(spent, probe, found.model))
    found.checks.extend(rivals.checks(wins, spent.reference, probe, found.model, {r.name: r.says for r in entrants}))
    found.curves.extend(curves.figures(found.model, probe, spent, slopes, function, wins))
    masks = {"reference": spent.reference, "pgd, cross-entropy": spent.by_steps[40], **wins}
    found.broken_ids[name] = {key: [i for i, hit in zip(ids, mask.tolist()) if hit] for key, mask in masks.items()}
    found.samples[name] = ids


def contradictions(
    frame: pd.DataFrame, evaluations: Mapping[str, Attack | Corruption], diagnosis: Diagnosis
) -> list[Check]:
    """The adaptive number: evaluations by iterated gradients whose survivors the diagnostic attacks broke.

    The lower of the two counts. More restarts and the other loss gain some points on honest networks too (up to 13 were
    measured at twice the radius trained for), so only a gap beyond `WIDE` with 95 % confidence speaks.

    Args:
        frame: ledger rows of this model.
    """
    checks = []
    for label, method in evaluations.items():
        rows = frame[frame["evaluation"] == label]
        if isinstance(method, Attack) and strength(method) == "gradient" and str(method.threat) in diagnosis.samples:
            looked = diagnosis.samples[str(method.threat)]
            right = rows.set_index("sample")["correct"].astype(bool).reindex(looked).dropna().astype(bool)
            broken = {i for ids in diagnosis.broken_ids[str(method.threat)].values() for i in ids}
            if len(right):
                checks.append(_contradiction(diagnosis.model, label, method, right, broken))
    return checks


def _contradiction(model: str, label: str, method: Attack, right: pd.Series, broken: set[int]) -> Check:
    lost = int(sum(ok and i in broken for i, ok in right.items()))
    low = at_least(lost, len(right))
    left = float(right.mean()) - lost / len(right)
    reason = (
        f"broken: on {len(right)} images that were right when clean {label} leaves "
        f"{100 * float(right.mean()):.1f} % right, the adaptive attacks leave {100 * left:.1f} %"
    )
    severity: Verdict = "broken" if low > 2 * rivals.WIDE else "suspect"
    text = reason if severity == "broken" else reason.removeprefix("broken: ")
    return Check(
        model,
        label,
        "adaptive accuracy",
        low <= rivals.WIDE,
        left,
        float(right.mean()),
        text,
        severity,
        str(method.threat),
    )


def _nothing_to_say(model: str, right: int, logits: Tensor) -> Check:
    constant = len(logits) > 0 and len(logits.argmax(1).unique()) == 1
    reason = f"only {right} images are classified correctly, {FEWEST} are needed for any check"
    if constant:
        reason = "every image is given one class: no perturbation can change that, and no check is needed"
    return Check(model, "", "enough samples", True, float(right), float(FEWEST), reason)


@contextmanager
def _restored(classifier: Classifier) -> Iterator[None]:
    """Buffers as they were, whatever a forward pass wrote into them."""
    before = {name: value.clone() for name, value in classifier.named_buffers()}
    with ExitStack() as stack:
        stack.callback(_put_back, classifier, before)
        yield


@torch.no_grad()
def _put_back(classifier: Classifier, buffers: Mapping[str, Tensor]) -> None:
    for name, value in classifier.named_buffers():
        if name in buffers and value.shape == buffers[name].shape:
            value.copy_(buffers[name])
