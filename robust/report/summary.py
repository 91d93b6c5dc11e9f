"""The summary in words: what was asked, one sentence a model, and the worst number with what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robust.report.accuracy import Outcomes
from robust.report.document import DatasetRow, GroupRow
from robust.report.samples import headline

VERDICT_WORDS = {
    "trusted": "a trusted upper bound",
    "suspect": "suspect, so the true figure may be lower",
    "broken": "broken: this number must not be quoted",
}


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal: `81.2 %`."""
    return f"{value * 100:.1f} %"


def question(study: Mapping[str, Any], dataset: DatasetRow, outcomes: Outcomes) -> str:
    """What was asked, unless the study says it itself."""
    if study.get("question"):
        return str(study["question"])
    networks = _count(len(outcomes.plan.models), "network")
    attacks = len({row["name"] for row in outcomes.plan.attacks})
    threats = [label.removeprefix("worst-case ") for label in outcomes.members]
    sizes = f" at {_joined(threats)}" if threats else ""
    against = f"against {_count(attacks, 'attack')}{sizes}" if attacks else "on unattacked images"
    return f"How robust {'is' if len(outcomes.plan.models) == 1 else 'are'} {networks} on {dataset.name} {against}?"


def summary(outcomes: Outcomes, groups: Sequence[GroupRow], dataset: DatasetRow) -> list[dict[str, Any]]:
    """Sentences as data: one for each group, and the worst number of all."""
    label = headline(outcomes)
    found = {(row.group, row.label): row for row in groups}
    sentences = []
    for group in outcomes.plan.groups:
        clean = found.get((group, outcomes.plan.clean or ""))
        worst = found.get((group, label or ""))
        if clean is None and worst is None:
            continue
        sentences.append(
            {
                "kind": "model",
                "group": group,
                "clean": clean.mean if clean else None,
                "robust": worst.mean if worst else None,
                "verdict": worst.verdict if worst else "trusted",
                "text": f"{group} {_sentence(outcomes, clean, worst)}",
            }
        )
    robust = [row for row in groups if row.label == label]
    if robust:
        least = min(robust, key=lambda row: row.mean)
        sentences.append(
            {"kind": "worst", "label": label, "group": least.group, "verdict": least.verdict, "text": _worst(least)}
        )
    return sentences


def _sentence(outcomes: Outcomes, clean: GroupRow | None, worst: GroupRow | None) -> str:
    parts = []
    if clean is not None:
        parts.append(f"gets {percent(clean.mean)} right on clean images{_seeds(clean)}")
    if worst is not None:
        attacks = len(outcomes.members[worst.label])
        parts.append(
            f"{'at' if parts else 'keeps at'} {worst.norm} {worst.eps} at most {percent(worst.mean)}"
            f"{_seeds(worst)} stay right under {_count(attacks, 'attack')}, which is {VERDICT_WORDS[worst.verdict]}"
        )
    elif outcomes.plan.attacks:
        parts.append("was not attacked at a fixed size")
    return "; ".join(parts) + "."


def _worst(row: GroupRow) -> str:
    return (
        f"The worst number: {percent(row.mean)} robust accuracy of {row.group} at {row.norm} {row.eps}, "
        f"{VERDICT_WORDS[row.verdict]}."
    )


def _seeds(row: GroupRow) -> str:
    return f" (mean of {row.seeds} seeds, {percent(row.least)} to {percent(row.most)})" if row.seeds > 1 else ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def threat_sentences(study: Mapping[str, Any], outcomes: Outcomes) -> list[str]:
    """What the adversary may do, one sentence a threat, unless the study says it itself."""
    if study.get("threat"):
        return [str(line) for line in study["threat"]]
    lines = []
    for (norm, eps), labels in outcomes.plan.threats().items():
        reach = f"of {norm} norm at most {eps}" if eps else f"as small as it can find in the {norm} norm"
        lines.append(f"The adversary may add a perturbation {reach} to an image in [0,1]; tried: {', '.join(labels)}.")
    return lines
