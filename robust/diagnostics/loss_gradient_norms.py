"""Loss-gradient norms: how fast the loss of a test image rises, and for how many images it seems not to rise at all."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.losses import LossName, loss_by_name

BATCH = 250
FLOOR = 1e-30  # smaller norms are drawn here


class LossGradientNorms(Diagnostic):
    """Histogram of |grad_x l(f(x), y)|_2 over the test images, for cross-entropy and for the margin.

    The quantity that gradient regularisation lowers (Finlay et al. 2018, arXiv 1810.00953) and that saturation hides:
    norms are small where a network is flat, and also where its softmax has rounded to one. The margin's gradient does
    not saturate, so the two histograms side by side tell one from the other.

    Rows, `of` each loss: `gradient-norm-mean`, `-median`, `-max`, and `zero-gradients`, the share of images whose
    gradient is exactly 0. The figure has log10 of the norm on its axis, with mean and maximum as upright lines.
    """

    name: ClassVar[str] = "loss-gradient-norms"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "arXiv 1810.00953"

    samples: int = Field(default=500, ge=1, description="first test images")
    losses: tuple[LossName, ...] = Field(default=("ce", "margin"), min_length=1, description="ce, margin, dlr, auto")
    bins: int = Field(default=40, ge=2, description="bars of the histogram")

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        images, labels, _ = subject.test.batch(slice(0, self.samples))
        norms = {loss: gradient_norms(subject.classifier, images, labels, loss) for loss in self.losses}
        rows = [row for loss, values in norms.items() for row in summary(loss, values)]
        return Measured(rows, [self.figure(norms)])

    def figure(self, norms: dict[LossName, Tensor]) -> Row:
        """Histograms on common bins, each with its mean and its maximum."""
        logs = {loss: values.clamp_min(FLOOR).log10().numpy() for loss, values in norms.items()}
        low, high = (f(float(f(part)) for part in logs.values()) for f in (min, max))
        edges = np.linspace(low, high if high > low else low + 1, self.bins + 1)
        series: list[Row] = []
        for loss, part in logs.items():
            share = np.histogram(part, edges)[0] / len(part)
            middle = ((edges[1:] + edges[:-1]) / 2).tolist()
            series.append({"label": loss, "mark": "histogram", "x": middle, "y": share.tolist()})
            marks = (("mean", float(norms[loss].mean())), ("max", float(norms[loss].max())))
            for name, value in marks:
                place = math.log10(max(value, FLOOR))
                series.append({"label": f"{loss} {name}", "x": [place, place], "y": [0.0, float(share.max())]})
        return {
            "id": "histogram",
            "paper": "T-4",
            "title": "Norm of the loss gradient at test images",
            "x_label": "log10 |grad_x l|_2",
            "y_label": "share of the images",
            "series": series,
        }


def gradient_norms(classifier: Classifier, images: Tensor, labels: Tensor, loss: LossName) -> Tensor:
    """|grad_x l|_2 of each image, [N] float64 on the CPU."""
    found = []
    with classifier.frozen():
        for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            x, y = x.to(classifier.device, classifier.dtype), y.to(classifier.device)
            gradient, _, _ = input_gradient(classifier, x, partial(_values, loss, y))
            found.append(torch.linalg.vector_norm(gradient.flatten(1).double(), dim=1).cpu())
    return torch.cat(found)


def _values(loss: LossName, labels: Tensor, logits: Tensor) -> Tensor:
    return loss_by_name(loss, logits.shape[1])(logits, labels)


def summary(loss: LossName, norms: Tensor) -> list[Row]:
    """Mean, median, maximum, and the share of zeros."""
    values = {
        "gradient-norm-mean": norms.mean(),
        "gradient-norm-median": norms.median(),
        "gradient-norm-max": norms.max(),
        "zero-gradients": (norms == 0).double().mean(),
    }
    return [{"quantity": name, "of": loss, "value": float(value), "n": len(norms)} for name, value in values.items()]
