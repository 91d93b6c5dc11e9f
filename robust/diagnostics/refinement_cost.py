"""What each step of a refinement costs, and what it buys: passes against clean and robust accuracy."""

from __future__ import annotations

import torch
from pydantic import Field

from robust.attacks.pgd import PGD
from robust.classifier import Classifier, Metered
from robust.corruptions.clean import Clean
from robust.defences.jem_refinement import JEMRefinement, Refined
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.judging import Evaluation, judge
from robust.method import Exact, exact
from robust.statistics import wilson
from robust.threat import ThreatModel


class RefinementCost(Diagnostic):
    """Passes, clean and robust accuracy of JEM refinement by its number of steps, under a straight-through attack.

    For each n of `steps` the network is wrapped in `jem-refinement` (Grathwohl et al. 2020, arXiv 1912.03263, section
    5.4) and attacked by linf PGD through its own gradient: the identity in place of the walk's derivative, and the mean
    over its copies (EOT). This attack is weak where steps are many; see the evaluations by `through` for strong ones.

    Rows at n: `refinement-passes` (forward and backward passes for one copy, counted: 1 + 2 n), `clean-accuracy`,
    `robust-accuracy` of each eps with 95 % intervals, and `points-per-pass`: percentage points of robust accuracy above
    n = 0 (or the smallest n) for each further pass. Seconds stand with the evaluations of the defence.
    """

    name = "refinement-cost"
    family = "energy"
    source = "arXiv 1912.03263"

    steps: tuple[int, ...] = Field(default=(0, 1, 2, 5, 10, 20), min_length=1, description="numbers of Langevin steps")
    eps: tuple[Exact, ...] = Field(default=(exact("1/10"), exact("2/10")), min_length=1, description="linf radii")
    attack_steps: int = Field(default=20, ge=1, description="steps of PGD")
    samples: int = Field(default=100, ge=1, description="test samples")
    copies: int = Field(default=5, ge=1, description="noisy copies that the defence averages")
    step_size: float = Field(default=1.0, gt=0, description="alpha of a Langevin step, for [-1,1] pixels")
    sigma: float = Field(default=0.01, ge=0, description="deviation of a step's noise, for [-1,1] pixels")
    input_sigma: float = Field(default=0.1, ge=0, description="deviation of the copies' noise, for [-1,1] pixels")

    def measure(self, subject: Subject) -> Measured:
        """Rows, and accuracy by steps and by passes as figures."""
        classifier = subject.classifier.inner if isinstance(subject.classifier, Refined) else subject.classifier
        attacks = [PGD(threat=ThreatModel(norm="linf", eps=eps), steps=self.attack_steps) for eps in self.eps]
        series: dict[str, dict[int, Row]] = {}
        passes: dict[int, float] = {}
        for steps in sorted(set(self.steps)):
            defence = JEMRefinement(
                steps=steps,
                step_size=self.step_size,
                sigma=self.sigma,
                input_sigma=self.input_sigma,
                copies=self.copies,
            )
            passes[steps] = _passes(defence, classifier, subject)
            judged: list[tuple[str, Evaluation]] = [("clean", Clean()), *((str(a.threat), a) for a in attacks)]
            for label, evaluation in judged:
                found = self._accuracy(defence.wrap(classifier), evaluation, subject)
                series.setdefault(label, {})[steps] = found
        return Measured(_rows(series, passes), _figures(series, passes))

    def _accuracy(self, defended: Classifier, evaluation: Evaluation, subject: Subject) -> Row:
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        frame = judge(defended, images, labels, ids, evaluation, subject.seed).rows
        right, n = int(frame["correct"].sum()), len(frame)
        low, high = wilson(right, n)
        return {"value": right / n, "n": n, "low": float(low), "high": float(high)}


def _passes(defence: JEMRefinement, classifier: Classifier, subject: Subject) -> float:
    """Forward and backward passes that one copy of an image takes, counted on one image."""
    image = subject.test.batch(slice(0, 1))[0].to(classifier.device, classifier.dtype)
    meter = Metered(classifier, 1)
    with classifier.frozen(), torch.no_grad():
        defence.wrap(meter)(image)
    return float(meter.forwards.sum() + meter.backwards.sum()) / defence.copies


def _rows(series: dict[str, dict[int, Row]], passes: dict[int, float]) -> list[Row]:
    rows: list[Row] = [{"quantity": "refinement-passes", "at": n, "value": count} for n, count in passes.items()]
    first = min(passes)
    for label, by_steps in series.items():
        for n, found in by_steps.items():
            if label == "clean":
                rows.append({"quantity": "clean-accuracy", "at": n, **found})
                continue
            rows.append({"quantity": "robust-accuracy", "of": label, "at": n, **found})
            if n > first:
                gained = 100 * (found["value"] - by_steps[first]["value"])
                value = gained / (passes[n] - passes[first])
                rows.append({"quantity": "points-per-pass", "of": label, "at": n, "value": value, "n": found["n"]})
    return rows


def _figures(series: dict[str, dict[int, Row]], passes: dict[int, float]) -> list[Row]:
    def figure(name: str, title: str, x_label: str, place: dict[int, float]) -> Row:
        lines = [
            {"label": label, "x": [place[n] for n in found]}
            | {to: [row[of] for row in found.values()] for to, of in (("y", "value"), ("low", "low"), ("high", "high"))}
            for label, found in series.items()
        ]
        return {"id": name, "paper": "J-6", "title": title, "x_label": x_label, "y_label": "accuracy",
                "y_range": [0, 1],
                "series": lines}  # fmt: skip

    return [
        figure("steps", "Accuracy by refinement steps", "Langevin steps", {n: float(n) for n in passes}),
        figure("passes", "Accuracy by what the refinement costs", "passes for one copy", passes),
    ]
