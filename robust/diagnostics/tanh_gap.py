"""Tanh gap: how much of a network's robustness against a cross-entropy attack is the loss's doing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from robust.attacks.attack import Attack
from robust.attacks.pgd import PGD
from robust.attacks.substitute import Substitute
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.judging import judge
from robust.method import Exact, exact
from robust.statistics import paired_bootstrap, wilson
from robust.threat import Norm, ThreatModel


class TanhGap(Diagnostic):
    """Error under one and the same PGD with cross-entropy, with the margin loss, and on the logits before a tanh.

    Saturated logits (a tanh layer, or logits that are simply large) leave cross-entropy without a gradient; the
    margin's is left, and the network before the tanh decides the same. What cross-entropy misses is the masking gap:
    error(strongest of all) - error(cross-entropy), over the same images, at the same steps, starts and size. The tanh
    layer of Finlay, Oberman & Abbasi 2018 (arXiv 1810.00953) is the case it is named after. Judged on the
    network itself throughout; a network without a tanh layer has two attacks instead of three.

    Rows, for each of `sizes` (as `at`): `error` (of: cross-entropy, margin, before-tanh; 95 % Wilson) and
    `masking-gap` (of: margin, before-tanh, worst; 95 % paired bootstrap). One figure: error against size.
    """

    name: ClassVar[str] = "tanh-gap"
    family: ClassVar[str] = "masking"
    source: ClassVar[str] = "arXiv 1810.00953"

    norm: Norm = Field(default="l2", description="norm of the attacks")
    sizes: tuple[Exact, ...] = Field(
        default=(exact("1/2"), exact(1), exact("3/2")), min_length=1, description="radii in [0,1] image units"
    )
    steps: int = Field(default=40, ge=1, description="PGD steps")
    samples: int = Field(default=300, ge=1, description="test images, the first ones")

    def measure(self, subject: Subject) -> Measured:
        """All attacks at all sizes."""
        rows: list[Row] = []
        for eps in self.sizes:
            errors = self._errors(subject, ThreatModel(norm=self.norm, eps=eps))
            rows += _rows(errors, float(eps))
        return Measured(rows, [self._figure(rows)])

    def _errors(self, subject: Subject, threat: ThreatModel) -> dict[str, np.ndarray]:
        """Whether each image is misclassified [N], by attack."""
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        attacks: dict[str, Attack] = {
            "cross-entropy": PGD(threat=threat, steps=self.steps, loss="ce"),
            "margin": PGD(threat=threat, steps=self.steps, loss="margin"),
        }
        if "substitute" in subject.classifier.views():
            plain = PGD(threat=threat, steps=self.steps, loss="ce")
            attacks["before-tanh"] = Substitute(attack=plain)
        found = {
            label: judge(subject.classifier, images, labels, ids, attack, subject.seed, certify_first=False)
            for label, attack in attacks.items()
        }
        return {label: ~judged.rows["correct"].to_numpy(bool) for label, judged in found.items()}

    def _figure(self, rows: list[Row]) -> Row:
        errors = [row for row in rows if row["quantity"] == "error"]
        series = []
        for label in dict.fromkeys(row["of"] for row in errors):
            own = [row for row in errors if row["of"] == label]
            line = {"label": label, "x": [row["at"] for row in own], "y": [100 * row["value"] for row in own]}
            series.append({**line, **{end: [100 * row[end] for row in own] for end in ("low", "high")}})
        return {
            "id": "tanh-gap",
            "title": "Error by the loss that the attack follows",
            "x_label": f"eps ({self.norm})",
            "y_label": "% error",
            "y_range": (0.0, 100.0),
            "series": series,
        }


def _rows(errors: dict[str, np.ndarray], at: float) -> list[Row]:
    rows: list[Row] = []
    for label, wrong in errors.items():
        low, high = wilson(wrong.sum(), len(wrong))
        limits = {"low": float(low), "high": float(high)}
        rows.append(
            {"quantity": "error", "of": label, "at": at, "value": float(wrong.mean()), "n": len(wrong), **limits}
        )
    base = errors["cross-entropy"].astype(float)
    others = {label: wrong for label, wrong in errors.items() if label != "cross-entropy"}
    others["worst"] = np.logical_or.reduce(list(errors.values()))
    for label, wrong in others.items():
        gap = paired_bootstrap(wrong.astype(float), base)
        limits = {"low": gap.low, "high": gap.high}
        rows.append({"quantity": "masking-gap", "of": label, "at": at, "value": gap.estimate, "n": len(base), **limits})
    return rows
