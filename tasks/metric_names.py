"""Metric names: the vocabulary under which every study's children are compared in MLflow.

`clean/acc`, `adv/<norm>/<attack>/acc`, `cor/<corruption>/acc`, `cor/mce`, `cal/ece_15`, `ood/<set>/auroc`,
`cert/<method>/acc`, `cost/...`. MLflow makes a chart section of every slash and refuses `@ = ( )`, so a part's own
slash (`8/255`) becomes an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from robust.registry import entries

NAME = re.compile(r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")


def metric_name(*parts: object) -> str:
    """Join the parts of a metric's name: `metric_name("adv", "linf", "pgd@8/255", "acc")` is `adv/linf/pgd_8_255/acc`.

    Raises:
        ValueError: a part is empty or holds nothing that a name may hold.
    """
    cleaned = [re.sub(r"[^A-Za-z0-9_.-]+", "_", str(part)).strip("_") for part in parts]
    if not cleaned or not all(part.strip(".") for part in cleaned):
        raise ValueError(f"no metric can be named after {parts!r}: every part needs a letter or a digit")
    name = "/".join(cleaned)
    return name if len(name) <= 250 else name[:250].rstrip("/")


def report_metrics(report: Mapping[str, Any], model: str) -> dict[str, float]:
    """The rows of one model in a report.json (schema 1) under the names above.

    `cor/mce` is the mean error over the corruptions (frames of sequences are none), not divided by any reference
    network's. Costs are passes and queries summed over the model's evaluations.
    """
    metrics: dict[str, float] = {}
    rows = [row for row in report.get("evaluations", []) if row["model"] == model]
    corruptions = {entry.name for entry in entries("corruption")}
    for row in rows:
        metrics[metric_name(*_section(row, corruptions), "acc")] = row["accuracy"]
    errors = [1 - row["accuracy"] for row in rows if row["name"] in corruptions - {"clean", "sequence-frame"}]
    if errors:
        metrics["cor/mce"] = sum(errors) / len(errors)
    for cost in ("forward", "backward", "queries"):
        metrics[f"cost/{cost}"] = float(sum(row.get(cost) or 0 for row in rows))
    metrics.update(_calibration(report, model))
    for row in report.get("detection", []):
        if row["model"] == model:
            for measure in ("auroc", "aupr", "fpr95"):
                _put(metrics, ("ood", row["ood"], row["score"], measure), row.get(measure))
                if row["score"] == "max-softmax":
                    _put(metrics, ("ood", row["ood"], measure), row.get(measure))
    for row in report.get("certificates", []):
        if row["model"] == model and row["n"]:
            _put(metrics, ("cert", row["name"], "acc"), row["verified"] / row["n"])
    return metrics


def _section(row: Mapping[str, Any], corruptions: set[str]) -> tuple[str, ...]:
    if row["name"] == "clean" and row["label"] in ("clean", None):
        return ("clean",)
    label = row.get("label") or row["name"]
    return ("cor", label) if row["name"] in corruptions else ("adv", row.get("norm") or "any", label)


def _calibration(report: Mapping[str, Any], model: str) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in report.get("calibration", []):
        if row["model"] != model:
            continue
        plain = row["under"] == "clean" and row["calibrator"] in ("none", "identity", None, "")
        place = () if plain else (row["under"], row["calibrator"] or "none")
        for measure in ("ece", "mce", "brier", "nll", "temperature"):
            _put(metrics, ("cal", *place, "ece_15" if measure == "ece" else measure), row.get(measure))
    return metrics


def _put(metrics: dict[str, float], parts: tuple[str, ...], value: float | None) -> None:
    if value is not None:
        metrics[metric_name(*parts)] = float(value)
