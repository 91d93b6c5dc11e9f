"""The verdict: which words stand in front of a robust accuracy, decided by checks that are stored as rows.

`trusted`: no check speaks against reading the number as an upper bound. `suspect`: a check says that a stronger
attack exists or could. `broken`: the classifier is misclassified on nearly everything the adversary may send, or
another evaluation inside the same threat model contradicts the number outright. The checks here need the ledger
alone; `robust.diagnostics.masking` adds those that need the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy import stats

from robust.attacks.attack import Attack
from robust.corruptions.corruption import Corruption

Verdict = Literal["trusted", "suspect", "broken"]
LEVEL = 0.01  # one-sided level of each paired comparison: a wrong "suspect" costs a user's trust as well


@dataclass(frozen=True)
class Check:
    """One check of one number: passed or not, the value seen, the bound it was held to, the reason in words."""

    model: str
    evaluation: str
    check: str
    passed: bool
    value: float
    bound: float
    reason: str
    severity: Verdict = "suspect"


def decide(checks: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """The worst severity among failed checks, and their reasons."""
    failed = [check for check in checks if not check.passed]
    verdict: Verdict = "trusted"
    if any(check.severity == "suspect" for check in failed):
        verdict = "suspect"
    if any(check.severity == "broken" for check in failed):
        verdict = "broken"
    return verdict, list(dict.fromkeys(check.reason for check in failed))


def ledger_checks(frame: pd.DataFrame, evaluations: Mapping[str, Attack | Corruption]) -> list[Check]:
    """The checks that compare evaluations of one model on the same samples.

    Args:
        frame: ledger rows of one model (one id), several evaluations.
        evaluations: label -> method, for threat models and families.
    """
    right = {
        label: group.set_index("sample")["correct"].astype(bool)
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
    weak = attack.family in ("single-step", "noise") and not any(
        other.threat.norm == attack.threat.norm
        and other.threat.eps == attack.threat.eps
        and other.family not in ("single-step", "noise")
        for other in attacks.values()
    )
    reason = f"{label} takes one step and no iterated attack ran at {attack.threat}: the true accuracy may be far lower"
    return [Check(model, label, "iterated", not weak, float(weak), 0.0, reason)]


def _beaten_by_weaker(
    model: str, label: str, attack: Attack, attacks: Mapping[str, Attack], right: Mapping[str, pd.Series]
) -> list[Check]:
    if attack.family in ("single-step", "noise", "black-box", "transfer", "decision"):
        return []
    checks = []
    for other_label, other in attacks.items():
        weaker = other.family in ("single-step", "noise", "black-box", "transfer", "decision")
        inside = (other.threat.norm, other.threat.radius) == (attack.threat.norm, attack.threat.radius)
        if weaker and inside:
            gap, p_value = _wins(right[label], right[other_label])
            passed = not (gap > 0 and p_value < LEVEL)
            reason = (
                f"{other_label} ({other.family}) breaks samples that {label} does not: {100 * gap:.1f} points in all, "
                "so the gradient is hidden from it"
            )
            checks.append(Check(model, label, f"not beaten by {other_label}", passed, gap, 0.0, reason))
    return checks


def _smaller_ball_wins(
    model: str, label: str, attack: Attack, attacks: Mapping[str, Attack], right: Mapping[str, pd.Series]
) -> list[Check]:
    checks = []
    for other_label, other in attacks.items():
        same = other.name == attack.name and other.threat.norm == attack.threat.norm
        if same and other.threat.radius < attack.threat.radius:
            gap, p_value = _wins(right[label], right[other_label])
            passed = not (gap > 0 and p_value < LEVEL)
            reason = (
                f"accuracy rises with eps: {label} at {attack.threat} leaves {100 * gap:.1f} points more than "
                f"{other_label} at {other.threat}"
            )
            checks.append(Check(model, label, f"falls with eps from {other_label}", passed, gap, 0.0, reason))
    return checks


def _wins(strong: pd.Series, weak: pd.Series) -> tuple[float, float]:
    """Accuracy under `strong` minus under `weak` on shared samples, and the one-sided sign-test p-value that it is > 0."""
    strong, weak = strong.align(weak, join="inner")
    only_weak, only_strong = int((strong & ~weak).sum()), int((~strong & weak).sum())
    if only_weak + only_strong == 0:
        return 0.0, 1.0
    p_value = stats.binomtest(only_weak, only_weak + only_strong, 0.5, alternative="greater").pvalue
    gap = float(strong.mean() - weak.mean()) if len(strong) else math.nan
    return gap, float(p_value)
