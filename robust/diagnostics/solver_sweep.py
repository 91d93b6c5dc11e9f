"""Solver sweep: does the accuracy, clean or attacked, depend on how finely a neural ODE is solved?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import fooled
from robust.attacks.pgd import PGD
from robust.attacks.wrapper import Inner
from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.steady_state import curve_of
from robust.models.ode_solver import IntegralCurve, SolverError
from robust.randomness import Randomness
from robust.statistics import wilson

Found = dict[str, list[tuple[float, float]]]  # "clean", "attacked", "transferred" -> (steps or tolerance, accuracy)


class SolverSweep(Diagnostic):
    """Accuracy of one set of weights under many solvers: Euler with 1 to 100 steps, dopri5 with falling tolerances.

    A masking test: the step control of adaptive solvers hides gradients (Huang et al. 2020, arXiv 2009.13145), and a
    coarse Euler may owe its accuracy to its error. Under each solver: clean accuracy; accuracy attacked through that
    very solver; accuracy on images made on the network as it was trained (`transferred`). The lowest counts: where
    `transferred` lies below `attacked`, the solver hides its gradient.

    Rows: `accuracy` (`of` solver and kind, `at` steps or tolerance, with n and 95 % interval), `evaluations` of f in a
    clean pass. A solver that fails leaves rows without a value. Cost: for every solver one attack. A network
    without integral curves gets one row without a value.
    """

    name: ClassVar[str] = "solver-sweep"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 2009.13145"

    steps: tuple[int, ...] = Field(default=(1, 2, 5, 10, 20, 50, 100), description="Euler steps over [0, T]")
    tolerances: tuple[float, ...] = Field(default=(1e-1, 1e-2, 1e-3, 1e-4), description="rtol and atol of dopri5")
    samples: int = Field(default=100, ge=1, description="first test images")
    attack: Inner = Field(
        default=PGD.model_validate({"norm": "linf", "eps": "1/5", "steps": 10}),
        description="the fixed-budget attack that every solver meets",
    )

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        classifier, curve = subject.classifier, curve_of(subject.classifier)
        if curve is None:
            return Measured([{"quantity": self.name, "value": None, "of": "this network has no integral curve"}])
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        images, labels = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
        rng = Randomness.of(subject.seed, ids, self.name)
        euler = [(float(n), {"solver": "euler", "step_size": curve.final_time / n}) for n in self.steps]
        dopri5 = [(tol, {"solver": "dopri5", "rtol": tol, "atol": tol}) for tol in self.tolerances]
        rows: list[Row] = []
        with classifier.frozen():
            made = self.attacked(classifier, images, labels, rng)
            for solver, variants in (("euler", euler), ("dopri5", dopri5)):
                for at, settings in variants:
                    with solved_with(curve, {**settings, "adjoint": False}):
                        rows += self.rows(classifier, curve, (images, made, labels), rng, {"at": at, "of": solver})
        return Measured(rows, figures(rows, str(self.attack.threat)))

    def rows(
        self,
        classifier: Classifier,
        curve: IntegralCurve,
        shown: tuple[Tensor, Tensor, Tensor],
        rng: Randomness,
        mark: Row,
    ) -> list[Row]:
        """Accuracies under the solver in force; `shown` are the images, those attacked elsewhere, and labels."""
        images, made, labels = shown
        found: list[Row] = []
        try:
            clean = right(classifier, images, labels)
            found.append({"quantity": "evaluations", "value": float(curve.evaluations), **mark})
            transferred = clean & right(classifier, made, labels)
            own = clean & right(classifier, self.attacked(classifier, images, labels, rng), labels)
        except SolverError:
            return [*found, {"quantity": "accuracy", "value": None, **mark, "of": f"{mark['of']}: the solver failed"}]
        for kind, kept in (("clean", clean), ("attacked", own), ("transferred", transferred)):
            count, n = int(kept.sum()), len(kept)
            low, high = (float(bound) for bound in wilson(count, n))
            row = {"quantity": "accuracy", "value": count / n, "n": n, "low": low, "high": high}
            found.append({**row, **mark, "of": f"{mark['of']} {kind}"})
        return found

    def attacked(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Attacked images [N,C,H,W]; those misclassified already stay as they are."""
        standing, moved = right(classifier, images, labels), images.clone()
        if standing.any():
            part = rng.select(standing.cpu())
            moved[standing] = self.attack.perturb(classifier, images[standing], labels[standing], part)
        return moved


@torch.no_grad()
def right(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Which images are classified correctly, [N] bool."""
    return ~fooled(classifier(images), labels)


@contextmanager
def solved_with(curve: IntegralCurve, settings: dict[str, Any]) -> Iterator[None]:
    """Another solver for the time of the block."""
    before = {name: getattr(curve, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(curve, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(curve, name, value)


def figures(rows: list[Row], threat: str) -> list[Row]:
    """Accuracy against Euler steps and against tolerances."""
    found = []
    for solver, label in (("euler", "Euler steps over [0, T]"), ("dopri5", "rtol = atol of dopri5")):
        series = []
        for kind in ("clean", "attacked", "transferred"):
            part = [row for row in rows if row["of"] == f"{solver} {kind}" and row["quantity"] == "accuracy"]
            columns = {key: [row[name] for row in part] for key, name in zip(*_COLUMNS, strict=True)}
            series += [{"label": kind, **columns}] if part else []
        if series:
            title = f"Accuracy against the solver's settings, attacked in {threat}"
            axes = {"x_label": label, "y_label": "accuracy", "x_log": True, "y_range": (0.0, 1.0)}
            found.append({"id": solver, "paper": "O-5", "title": title, **axes, "series": series})
    return found


_COLUMNS = (("x", "y", "low", "high"), ("at", "value", "low", "high"))
