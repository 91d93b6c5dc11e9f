"""The margin over a training: both normalised forms, the smoothed margin and whether it ever fell, and figure M-1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from pydantic import Field

from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.homogeneity import degree
from robust.diagnostics.stages import line
from robust.log_losses import LossFunction
from robust.margins import margins_of

FINAL = ("log10_loss", "smallest_margin", "margin_product", "margin_norm", "smoothed_margin", "train_accuracy")


class MarginsDiagnostic(Diagnostic):
    """Normalised and smoothed margin of the training set, at the end and over the epochs.

    q_min / prod ||W_l||_F (the form of the published figure), q_min / ||theta||^L, and the smoothed margin
    l^{-1}(sum of losses) / ||theta||^L (Lyu & Li 2020, arXiv 1906.05890). Theorem: under gradient flow the last never
    falls once the loss sum is below log 2. A training takes steps, so it is checked: the relative drop from one
    accepted epoch to the next, over all of them after that point, with the epochs that exceed `allowed_drop`.

    Rows: the final values (of the network at hand, in float64), the number of accepted and rolled-back epochs, the
    first epoch with every sample right, the monotonicity check, the slope of log10 loss over the second half, and the
    product margin at round counts of accepted epochs (`at`) and of tries (`epoch`), for comparison with another arm.
    Figure M-1: margins, log10 loss, learning rate and rollbacks over epochs. What the history lacks is left out.
    """

    name: ClassVar[str] = "margins"
    family: ClassVar[str] = "margins"
    source: ClassVar[str] = "arXiv 1906.05890"

    allowed_drop: float = Field(default=1e-6, ge=0, description="relative drop of the smoothed margin that is let pass")
    loss_function: LossFunction = Field(default="cross-entropy", description="the one trained with")
    named: int = Field(default=10, ge=0, description="epochs named when the smoothed margin falls")

    def measure(self, subject: Subject) -> Measured:
        """Rows and the figures m1-margin, m1-smoothed, m1-loss, m1-rate, m1-rollbacks."""
        classifier, train = subject.classifier, subject.train
        found = margins_of(classifier, train, degree(classifier, train.batch(slice(0, 8))[0]), self.loss_function).row()
        rows: list[Row] = [{"quantity": name, "value": found.get(name), "n": len(train)} for name in FINAL]
        history = [row for row in subject.history if "margin_product" in row]
        if not history:
            return Measured(rows)
        kept = [row for row in history if not row.get("rolled_back")]
        separated = next((row["epoch"] for row in kept if row["train_accuracy"] == 1.0), None)
        rows += [
            {"quantity": "tries", "value": history[-1]["tries"]},
            {"quantity": "accepted epochs", "value": history[-1]["accepted"]},
            {"quantity": "share rolled back", "value": 1 - history[-1]["accepted"] / history[-1]["tries"]},
            {"quantity": "first epoch without an error", "value": separated},
            {"quantity": "log10 loss per accepted epoch", "value": _slope(kept)},
            *self._monotonicity(kept, len(train)),
            *_round_counts(kept, "accepted"),
            *_round_counts(history, "tries"),
        ]
        return Measured(rows, _figures(history))

    def _monotonicity(self, kept: Sequence[Row], samples: int) -> list[Row]:
        """Relative drops of the smoothed margin between accepted epochs, once the loss sum is below log 2."""
        limit = 0.0 if self.loss_function == "exponential" else math.log(math.log(2))
        below = [row["log10_loss"] * math.log(10) + math.log(samples) < limit for row in kept]
        first = below.index(True) if True in below else len(kept)
        after = [row for row in kept[first:] if "log_smoothed_margin" in row]
        drops = [
            (-math.expm1(now["log_smoothed_margin"] - before["log_smoothed_margin"]), int(now["epoch"]))
            for before, now in pairwise(after)
        ]
        breaking = [epoch for drop, epoch in drops if drop > self.allowed_drop]
        named = ", ".join(map(str, breaking[: self.named])) + (", ..." if len(breaking) > self.named else "")
        worst = max(drops, default=(0.0, 0))
        return [
            {"quantity": "epoch from which the smoothed margin may not fall",
             "value": after[0]["epoch"] if after else None},
            {"quantity": "largest relative drop of the smoothed margin", "value": max(0.0, worst[0]),
             "epoch": worst[1], "n": len(drops)},
            {"quantity": "epochs in which the smoothed margin falls", "value": len(breaking), "n": len(drops),
             "detail": named},
        ]  # fmt: skip


def _slope(kept: Sequence[Row]) -> float | None:
    """Change of log10 loss per accepted epoch over the second half."""
    half = kept[len(kept) // 2 :]
    if len(half) < 2:
        return None
    return float((half[-1]["log10_loss"] - half[0]["log10_loss"]) / (half[-1]["accepted"] - half[0]["accepted"]))


def _round_counts(rows: Sequence[Row], counted: str) -> list[Row]:
    """The product margin and log10 loss when 1, 2, 5, 10, 20, 50, ... epochs were accepted or tried, and at the end."""
    wanted = [m * 10**k for k in range(6) for m in (1, 2, 5)]
    picked = {row[counted]: row for row in rows if row[counted] in wanted} | {rows[-1][counted]: rows[-1]}
    return [
        {"quantity": f"{name} by {counted}", "value": row[name], "at": at, "epoch": int(row["epoch"])}
        for at, row in picked.items()
        for name in ("margin_product", "log10_loss")
    ]


def _figures(history: Sequence[Row]) -> list[Row]:
    """M-1: one figure a quantity over a logarithmic axis of epochs (tries)."""
    epochs = [row["epoch"] for row in history]

    def figure(key: str, title: str, y_label: str, *names: str) -> Row:
        series = [line(name.replace("_", " "), epochs, [row.get(name) for row in history]) for name in names]
        return {"id": key, "paper": "M-1", "title": title, "x_label": "epoch (tries)", "y_label": y_label,
                "x_log": True,
                "series": [each for each in series if each["x"]]}  # fmt: skip

    failed = line("rolled back", epochs, [row["tries"] - row["accepted"] for row in history])
    figures = [
        figure("m1-margin", "Normalised margin, product form", "q_min / prod ||W||", "margin_product"),
        figure("m1-smoothed", "Normalised and smoothed margin", "/ ||theta||^L", "margin_norm", "smoothed_margin"),
        figure("m1-loss", "Training loss", "log10 loss", "log10_loss"),
        figure("m1-rate", "Learning rate on the loss itself", "log10 rate", "log10_rate"),
        {**figure("m1-rollbacks", "Epochs taken back", "epochs", "tries"), "series": [failed]},
    ]
    return [each for each in figures if each["series"]]
