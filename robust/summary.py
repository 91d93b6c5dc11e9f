"""Summaries of a ledger: accuracy with its interval, cost and verdict, one row a model and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from scipy import stats

from robust.attacks.attack import Attack
from robust.corruptions.corruption import Corruption
from robust.diagnostics.verdict import Check, decide, ledger_checks
from robust.method import fraction_text


def summarise(
    frame: pd.DataFrame, evaluations: Mapping[str, Attack | Corruption], measured: Sequence[Check] = ()
) -> pd.DataFrame:
    """One row a model and evaluation.

    Args:
        frame: ledger rows.
        evaluations: label -> method.
        measured: checks that needed the model (see `robust.diagnostics.masking`), added to those of the ledger.

    Returns:
        Columns model, evaluation, norm, eps, n, correct, accuracy, low, high, forward, backward, queries, verdict,
        reasons; accuracy in [0,1] with its 95 % Wilson interval, passes as totals.
    """
    rows = []
    for model, of_model in frame.groupby("model", sort=True):
        checks = [*ledger_checks(of_model, evaluations), *(c for c in measured if c.model == model)]
        for label, method in evaluations.items():
            group = of_model[of_model["evaluation"] == label]
            if len(group):
                rows.append({"model": model, **_row(label, method, group, checks)})
    return pd.DataFrame(rows)


def _row(label: str, method: Attack | Corruption, group: pd.DataFrame, checks: Sequence[Check]) -> dict[str, object]:
    n, correct = len(group), int(group["correct"].astype(bool).sum())
    interval = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    verdict, reasons = decide([c for c in checks if c.evaluation == label])
    threat = method.threat if isinstance(method, Attack) else None
    return {
        "evaluation": label,
        "name": method.name,
        "norm": threat.norm if threat else None,
        "eps": fraction_text(threat.eps) if threat and threat.eps is not None else None,
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "forward": int(group["forward"].sum()),
        "backward": int(group["backward"].sum()),
        "queries": int(group["queries"].sum()),
        "verdict": verdict,
        "reasons": reasons,
    }
