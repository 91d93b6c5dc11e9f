"""Sampler health: whether the chains of an energy model kept up with the data while it was trained."""

from __future__ import annotations

import math
from typing import Any

from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject

CURVES = {"f_data": "f(data)", "f_samples": "f(samples)", "gap": "gap"}


class SamplerHealth(Diagnostic):
    """Energies of data and of samples, their gap, the sampler's gradient and the restarts, epoch by epoch.

    From the terms that `jem` writes into the history (Grathwohl et al. 2020, arXiv 1912.03263): f = logsumexp_k f(x)_k
    in nats, means over an epoch. A gap that runs away from 0 says that the chains no longer reach what the network
    calls likely: the sign of a divergence to come. Costs no pass; finds nothing for other objectives.

    Rows: the last epoch's `f-data`, `f-samples`, `gap` and `sampler-gradient`, the largest |gap| of any epoch, and
    `restarts`.
    """

    name = "sampler-health"
    family = "energy"
    source = "arXiv 1912.03263"

    def measure(self, subject: Subject) -> Measured:
        """Rows and the figures `energies`, `sampler-gradient` and `restarts`."""
        history = [row for row in subject.history if "gap" in row]
        if not history:
            return Measured()
        last, epochs = history[-1], [row["epoch"] for row in history]
        rows: list[Row] = [
            {"quantity": name.replace("_", "-"), "value": last[name], "epoch": last["epoch"]}
            for name in (*CURVES, "sampler_gradient")
        ]
        widest = max(history, key=lambda row: abs(row["gap"]))
        rows.append({"quantity": "largest-gap", "value": abs(widest["gap"]), "epoch": widest["epoch"]})
        rows.append({"quantity": "restarts", "value": float(last.get("restarts", 0.0)), "epoch": last["epoch"]})
        energies = [
            {"label": label, "x": epochs, "y": [row[name] for row in history]} for name, label in CURVES.items()
        ]
        begun = _restarted(history)
        if begun:  # where a restart led back to, on the level of the gap
            marks = [row["gap"] for row in history if row["epoch"] in begun]
            energies.append({"label": "restarted before", "x": begun, "y": marks, "mark": "points"})
        steepness = [row["sampler_gradient"] for row in history]
        counts = [row.get("restarts", 0.0) for row in history]
        figures = [
            _figure("energies", "Energies while training", "logsumexp of the logits (nats)", energies),
            _figure("sampler-gradient", "Gradient that the sampler follows", "norm (nats per pixel)",
                    [{"label": "|df/dx|", "x": epochs, "y": steepness}])
            | {"y_log": min(steepness) > 0 and math.isfinite(max(steepness))},
            _figure("restarts", "Restarts after a divergence", "restarts so far",
                    [{"label": "restarts", "x": epochs, "y": counts, "mark": "steps"}]),
        ]  # fmt: skip
        return Measured(rows, figures)


def _restarted(history: list[Row]) -> list[float]:
    """Epochs that were reached only after a further restart."""
    before = 0.0
    found = []
    for row in history:
        if row.get("restarts", 0.0) > before:
            found.append(row["epoch"])
        before = row.get("restarts", 0.0)
    return found


def _figure(name: str, title: str, y_label: str, series: list[dict[str, Any]]) -> Row:
    return {"id": name, "paper": "J-7", "title": title, "x_label": "epoch", "y_label": y_label, "series": series}
