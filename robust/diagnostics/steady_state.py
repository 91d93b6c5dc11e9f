"""Whether a neural ODE comes to rest: the steady-state loss over the training, and the speed |f| along the curves."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.models.ode_blocks import map_network
from robust.models.ode_solver import IntegralCurve
from robust.objectives.tisode import masses, steady_state_loss

POINTS = 40  # times at most at which |f| is taken
WATCHED = "steady_state_watched"  # the history's column under the objective tisode


class SteadyState(Diagnostic):
    """L_ss and |f| against time, for the trained network and its snapshots.

    L_ss = 1/N sum_n | integral_T^2T |f(z_n(t))| dt | (Yan et al. 2020, arXiv 1910.05513, section 4), in both norms of
    the objective `tisode`, on clean test images; the speed is the mean over elements of |f(t, z(t))|.

    Rows: `steady-state-loss` (of `l1-mean` and `l2`), `speed` at t = 0, T, 2T, `speed-ratio` (at 2T over at 0). A row
    of a snapshot has its `epoch`. Figures: L_ss against epochs (from the history where the training had the loss,
    else from the snapshots), |f| against time with T and 2T marked. A network without integral curves gets one row
    without a value.
    """

    name: ClassVar[str] = "steady-state"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    samples: int = Field(default=128, ge=1, description="test images")

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        curve = curve_of(subject.classifier)
        if curve is None:
            return Measured([{"quantity": self.name, "value": None, "of": "this network has no integral curve"}])
        images = subject.test.batch(slice(0, self.samples))[0]
        rows, series = self.speeds(subject.classifier, images, {}, "trained network")
        found: dict[float, float] = {}
        for epoch, load in sorted(subject.snapshots.items()):
            more, lines = self.speeds(load(), images, {"epoch": epoch}, f"epoch {epoch}")
            rows, series = rows + more, series + lines
            found[float(epoch)] = float(more[0]["value"])
        told = {float(row["epoch"]): float(row[WATCHED]) for row in subject.history if WATCHED in row}
        figures = [speed_figure(series, curve.final_time)]
        if told or found:
            figures.insert(0, loss_figure(told or found))
        return Measured(rows, figures)

    def speeds(self, classifier: Classifier, images: Tensor, mark: Row, label: str) -> tuple[list[Row], list[Row]]:
        """Rows and the series of |f| of one network."""
        curve = curve_of(classifier)
        if curve is None:
            return [], []
        x, final = images.to(classifier.device, classifier.dtype), curve.final_time
        times = curve.times(2 * final, POINTS)
        with classifier.frozen(), torch.no_grad():
            mass = masses(classifier, x, final, 2 * final)
            start = map_start(classifier, x)
            states = curve.states(start, times)
            speed = [float(curve.derivative(t, z).abs().mean()) for t, z in zip(times, states, strict=True)]
        n, middle = len(x), min(range(len(times)), key=lambda index: abs(times[index] - final))
        rows: list[Row] = [
            {"quantity": "steady-state-loss", "of": norm, "value": float(steady_state_loss(mass, norm)), "n": n, **mark}
            for norm in ("l1-mean", "l2")
        ]
        for index in (0, middle, len(times) - 1):
            rows.append({"quantity": "speed", "at": times[index], "value": speed[index], "n": n, **mark})
        rows.append({"quantity": "speed-ratio", "value": speed[-1] / max(speed[0], 1e-30), "n": n, **mark})
        return rows, [{"label": label, "x": times, "y": speed}]


def curve_of(classifier: Classifier) -> IntegralCurve | None:
    """The integral curve behind a classifier, if there is one."""
    network = map_network(classifier)
    return network.mapping if network is not None and isinstance(network.mapping, IntegralCurve) else None


def map_start(classifier: Classifier, images: Tensor) -> Tensor:
    """z(0) of these images, [N,C,H,W] of the map."""
    network = map_network(classifier)
    if network is None:
        raise ValueError("this network has no feature extractor before a map")
    start: Tensor = network.extractor(classifier.normalise(images))
    return start


def loss_figure(found: dict[float, float]) -> Row:
    """L_ss against epochs."""
    return {
        "id": "loss",
        "paper": "O-4",
        "title": "Steady-state loss over the training",
        "x_label": "epoch",
        "y_label": "L_ss",
        "series": [{"label": "L_ss", "x": list(found), "y": list(found.values())}],
    }


def speed_figure(series: list[Row], final: float) -> Row:
    """|f| against time, with T and 2T as upright lines."""
    top = max(max(line["y"]) for line in series)
    marks = [{"label": label, "x": [time, time], "y": [0.0, top]} for label, time in (("T", final), ("2T", 2 * final))]
    return {
        "id": "speed",
        "paper": "O-4",
        "title": "Speed along the integral curves",
        "x_label": "time t",
        "y_label": "mean |f(t, z(t))|",
        "series": [*series, *marks],
    }
