"""The verdict: which words stand in front of a robust accuracy, decided by checks that are stored as rows.

`trusted`: no check speaks against reading the number as an upper bound. `suspect`: a check says that a stronger
attack exists or could. `broken`: a stronger attack was run and leaves much less. The checks here need the ledger
alone; `robust.diagnostics.masking` adds those that need the model, and here they meet the evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
from scipy import stats

from robust.attacks.attack import Attack
from robust.attacks.wrapper import Wrapper
from robust.corruptions.corruption import Corruption

Verdict = Literal["trusted", "suspect", "broken"]
# which evaluations a measured check speaks about: every attack; those that take gradients; those of them that follow
# cross-entropy; those that take the classifier's own gradient; those of them that average over no randomness
Scope = Literal["any", "gradient", "cross-entropy", "own gradient", "single draw"]
LEVEL = 0.01  # one-sided level of each paired comparison: a wrong "suspect" costs a user's trust as well

# many gradients of the classifier; one; none; or not an attack in a norm ball
Strength = Literal["gradient", "single step", "no gradient", "elsewhere"]
CLEAR = 0.02  # smallest difference of accuracies that is called one
DIRECT = 0.05  # the same between two attacks of which the stronger had better company

FOLLOW_CROSS_ENTROPY = ("fgsm", "bim", "apgd-ce", "mi-fgsm", "di-fgsm", "ti-fgsm", "universal")
AROUND = ("bpda", "substitute", "through")


@dataclass(frozen=True)
class Check:
    """One check of one number: passed or not, the value seen, the bound it was held to, the reason in words.

    A measured check names no evaluation yet: it speaks about all of `scope` in the threat model `threat` ("" for any),
    and `attached` gives each of them its copy.
    """

    model: str
    evaluation: str
    check: str
    passed: bool
    value: float
    bound: float
    reason: str
    severity: Verdict = "suspect"
    threat: str = ""
    scope: Scope = "any"


def decide(checks: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """The worst severity among failed checks, and their reasons."""
    failed = [check for check in checks if not check.passed]
    verdict: Verdict = "trusted"
    if any(check.severity == "suspect" for check in failed):
        verdict = "suspect"
    if any(check.severity == "broken" for check in failed):
        verdict = "broken"
    return verdict, list(dict.fromkeys(check.reason for check in failed))


def verdict_for(
    label: str, method: Attack | Corruption, ledger: Sequence[Check], measured: Sequence[Check]
) -> tuple[Verdict, list[str]]:
    """Verdict and reasons of one evaluation, from the ledger's checks and those that needed the model."""
    return decide([*(c for c in ledger if c.evaluation == label), *attached(measured, {label: method})])


def attached(measured: Sequence[Check], evaluations: Mapping[str, Attack | Corruption]) -> list[Check]:
    """A copy of each measured check for every evaluation that it speaks about."""
    return [
        replace(check, evaluation=label)
        for label, method in evaluations.items()
        for check in measured
        if isinstance(method, Attack) and applies(check, method)
    ]


def applies(check: Check, attack: Attack) -> bool:
    """Whether a measured check says something about this attack's number."""
    if check.threat and check.threat != str(attack.threat):
        return False
    inner: Attack = attack
    around, averaged = False, False
    while True:
        around |= inner.name in AROUND
        averaged |= inner.name == "eot" or getattr(inner, "eot", 1) > 1 or getattr(inner, "version", "") == "rand"
        if not isinstance(inner, Wrapper):
            break
        inner = inner.attack
    gradient = strength(attack) in ("gradient", "single step")
    follows = getattr(inner, "loss", "ce" if inner.name in FOLLOW_CROSS_ENTROPY else "") == "ce"
    return {
        "any": True,
        "gradient": gradient,
        "cross-entropy": gradient and follows,
        "own gradient": gradient and not around,
        "single draw": gradient and not averaged,
    }[check.scope]


def strength(attack: Attack) -> Strength:
    """What an attack is, by its family and its passes."""
    if attack.family in ("patch", "transformation"):
        return "elsewhere"  # its images leave the norm ball: its successes compare with nobody else's
    if attack.family in ("black box", "black-box", "decision", "noise") or attack.name == "universal":
        return "no gradient"
    return "single step" if attack.family == "single-step" or attack.passes(10)[1] == 1 else "gradient"


def ledger_checks(frame: pd.DataFrame, evaluations: Mapping[str, Attack | Corruption]) -> list[Check]:
    """The checks that compare evaluations of one model on the same samples.

    Args:
        frame: ledger rows of one model (one id), several evaluations.
        evaluations: label -> method, for threat models and families.
    """
    right: dict[str, pd.Series] = {
        str(label): group.set_index("sample")["correct"].astype(bool)
        for label, group in frame.groupby("evaluation")
        if label in evaluations
    }
    model = str(frame["model"].iloc[0]) if len(frame) else ""
    attacks = {label: method for label, method in evaluations.items() if isinstance(method, Attack) and label in right}
    checks: list[Check] = []
    for label, attack in attacks.items():
        checks += [
            *_single_step(model, label, attack, attacks),
            *_beaten_by_weaker(model, label, attack, attacks, right),
            *_smaller_ball_wins(model, label, attack, attacks, right),
        ]
    return checks


def _single_step(model: str, label: str, attack: Attack, attacks: Mapping[str, Attack]) -> list[Check]:
    alone = strength(attack) == "single step" or attack.name == "random-noise" or attack.family == "noise"
    weak = alone and not any(
        other.threat.norm == attack.threat.norm
        and other.threat.eps == attack.threat.eps
        and strength(other) == "gradient"
        for other in attacks.values()
    )
    reason = f"{label} takes one step and no iterated attack ran at {attack.threat}: the true accuracy may be far lower"
    return [Check(model, label, "iterated", not weak, float(weak), 0.0, reason)]


def _beaten_by_weaker(
    model: str, label: str, attack: Attack, attacks: Mapping[str, Attack], right: Mapping[str, pd.Series]
) -> list[Check]:
    """A weaker attack must beat neither all gradient attacks of this threat together nor, by much, this one alone.

    The second is asked of attacks that try to be strong: DeepFool stops at the first boundary that it meets.
    """
    if strength(attack) != "gradient":
        return []
    peers = [key for key, other in attacks.items() if strength(other) == "gradient" and _same_ball(attack, other)]
    together = pd.concat([right[key] for key in peers], axis=1, join="inner").all(axis=1)
    checks = []
    for other_label, other in attacks.items():
        if strength(other) in ("single step", "no gradient") and _same_ball(attack, other):
            gap, p_value = _wins(right[label], right[other_label])
            joint, joint_p = _wins(together, right[other_label])
            direct = gap > DIRECT and p_value < LEVEL and attack.family != "smallest distance"
            passed = not (direct or (joint > CLEAR and joint_p < LEVEL))
            reason = (
                f"{other_label} ({other.family}) breaks samples that {label} does not: {100 * gap:.1f} points in all, "
                "so the gradient is hidden from it"
            )
            checks.append(Check(model, label, f"not beaten by {other_label}", passed, gap, 0.0, reason))
    return checks


def _same_ball(attack: Attack, other: Attack) -> bool:
    return (other.threat.norm, other.threat.radius) == (attack.threat.norm, attack.threat.radius)


def _smaller_ball_wins(
    model: str, label: str, attack: Attack, attacks: Mapping[str, Attack], right: Mapping[str, pd.Series]
) -> list[Check]:
    checks = []
    for other_label, other in attacks.items():
        same = other.name == attack.name and other.threat.norm == attack.threat.norm
        if same and other.threat.radius < attack.threat.radius:
            gap, p_value = _wins(right[label], right[other_label])
            passed = not (gap > CLEAR and p_value < LEVEL)
            reason = (
                f"accuracy rises with eps: {label} at {attack.threat} leaves {100 * gap:.1f} points more than "
                f"{other_label} at {other.threat}"
            )
            checks.append(Check(model, label, f"falls with eps from {other_label}", passed, gap, 0.0, reason))
    return checks


def _wins(strong: pd.Series, weak: pd.Series) -> tuple[float, float]:
    """Accuracy under `strong` minus that under `weak` on shared samples, and the one-sided sign-test p-value of > 0."""
    strong, weak = strong.align(weak, join="inner")
    only_weak, only_strong = int((strong & ~weak).sum()), int((~strong & weak).sum())
    if only_weak + only_strong == 0:
        return 0.0, 1.0
    p_value = stats.binomtest(only_weak, only_weak + only_strong, 0.5, alternative="greater").pvalue
    gap = float(strong.mean() - weak.mean()) if len(strong) else math.nan
    return gap, float(p_value)


def at_least(hits: int, n: int) -> float:
    """Lower end of the one-sided 95 % Clopper-Pearson interval of a share."""
    return float(stats.beta.ppf(0.05, hits, n - hits + 1)) if hits else 0.0
