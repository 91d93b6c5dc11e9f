"""How far is a network from a KKT point of the margin maximisation problem? The two residuals of the theory."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.homogeneity import degree
from robust.diagnostics.stages import finite, history_row, line, stages
from robust.log_losses import LossFunction, log_losses, pair_gaps


@dataclass(frozen=True)
class KKT:
    """Residuals at theta~ = theta / q_min^{1/L}, which satisfies all constraints q >= 1.

    Attributes:
        epsilon: ||theta~ - sum lambda h||_2; delta: max lambda (q~ - 1).
        size: ||theta~||_2, the unit of epsilon; delta's is its square.
        cosine: of the angle between theta and -grad L; 1 at a KKT point.
        smallest: q_min.
    """

    epsilon: float
    delta: float
    size: float
    cosine: float
    smallest: float


def kkt(
    classifier: Classifier, dataset: Dataset, order: int, loss: LossFunction = "cross-entropy", size: int = 500
) -> KKT | None:
    """Residuals of an (epsilon, delta)-KKT point, in float64; None while a sample is misclassified.

    The problem is min ||theta||^2 / 2 under q_nj(theta) = z_y - z_j >= 1 for all samples n and classes j != y. With the
    multipliers of the convergence proof (Lyu & Li 2020, arXiv 1906.05890, appendix on convergence to KKT points),
        lambda_nj = q_min^{1-2/L} rho (-dL/dq_nj) / ||grad L||_2,
    and h the gradient of q at theta~, sum lambda h = -(rho / q_min^{1/L}) grad L / ||grad L||, so that
        epsilon = ||theta~|| sqrt(2 (1 - cos(theta, -grad L))),   delta = max lambda_nj (q_nj / q_min - 1).
    L enters relative to its own size, so a loss of 10^-800 is as good as any.

    Args:
        classifier: homogeneous; left as it is, a copy is taken to float64.
        dataset: the training samples.
        order: its degree L.
        loss: the loss function.
        size: samples passed at once.
    """
    network = copy.deepcopy(classifier).double().requires_grad_(True).eval()
    frame, smallest = _frame(network, dataset, loss, size)
    if smallest <= 0:
        return None
    parameters = list(network.parameters())
    gradient = [torch.zeros_like(parameter) for parameter in parameters]
    slack = 0.0  # max over pairs of -dL/dq (q / q_min - 1), L in units of its own size
    for logits, labels in _logits(network, dataset, size):
        leaf = logits.detach().requires_grad_(True)
        (pull,) = torch.autograd.grad((log_losses(leaf, labels, loss) - frame).exp().sum(), leaf)
        torch._foreach_add_(gradient, torch.autograd.grad(logits, parameters, grad_outputs=pull))
        beyond = -pair_gaps(logits.detach(), labels) / smallest - 1
        slack = max(slack, float((pull * beyond).nan_to_num(0.0).scatter(1, labels[:, None], 0.0).max()))
    theta = torch.cat([parameter.detach().flatten() for parameter in parameters])
    descent = -torch.cat([part.flatten() for part in gradient])
    rho, steep = float(theta.norm()), float(descent.norm())
    apart = float((theta / rho - descent / steep).norm())  # sqrt(2 (1 - cos)), without its cancellation
    unit = rho / smallest ** (1 / order)
    delta = smallest ** (1 - 2 / order) * rho / steep * slack
    return KKT(unit * apart, delta, unit, 1 - apart**2 / 2, smallest)


def _frame(classifier: Classifier, dataset: Dataset, loss: LossFunction, size: int) -> tuple[float, float]:
    """log of the loss sum, and q_min."""
    with torch.no_grad():
        logs, margins = [], []
        for logits, labels in _logits(classifier, dataset, size):
            logs.append(log_losses(logits, labels, loss))
            margins.append(-pair_gaps(logits, labels).amax(1))
    return float(torch.cat(logs).logsumexp(0)), float(torch.cat(margins).min())


def _logits(classifier: Classifier, dataset: Dataset, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels, _ in dataset.batches(size):
        yield classifier(images.to(classifier.device).double()), labels.to(classifier.device)


class KKTDistance(Diagnostic):
    """Distance to an approximate KKT point of the margin problem, at each snapshot.

    The (epsilon, delta) residuals of Lyu & Li 2020, arXiv 1906.05890, in float64 (see `kkt`). Both are relative in the
    rows (epsilon over ||theta~||, delta over its square), so that networks compare; the paper's own numbers stand
    beside them. Theorem: both go to 0 along gradient flow. A KKT point is first-order only: nothing here says that the
    margin is the largest there is.
    """

    name: ClassVar[str] = "kkt-distance"
    family: ClassVar[str] = "margins"
    source: ClassVar[str] = "arXiv 1906.05890"

    samples: int = Field(default=10_000, ge=1, description="training samples, the constraints of the problem")
    loss_function: LossFunction = Field(default="cross-entropy", description="the one trained with")

    def measure(self, subject: Subject) -> Measured:
        """Rows for each snapshot, and a figure over epochs."""
        train = subject.train.subset(slice(0, self.samples))
        order = degree(subject.classifier, train.batch(slice(0, 8))[0])
        if order is None:
            return Measured([{"quantity": "kkt", "value": None, "detail": "the network is not homogeneous"}])
        rows: list[Row] = []
        for epoch, network in stages(subject):
            rows += self._rows(kkt(network(), train, order, self.loss_function), epoch, len(train), subject)
        names = ("kkt epsilon, relative", "kkt delta, relative")
        series = [
            line(name, [r["epoch"] for r in rows if r["quantity"] == name],
                 [r["value"] for r in rows if r["quantity"] == name], mark="points")
            for name in names
        ]  # fmt: skip
        return Measured(rows, [
            {"id": "kkt-distance", "title": "Distance to a KKT point", "x_label": "epoch (tries)",
             "y_label": "relative residual", "x_log": True, "y_log": True, "series": series}
        ] if any(each["x"] for each in series) else [])  # fmt: skip

    @staticmethod
    def _rows(found: KKT | None, epoch: int, samples: int, subject: Subject) -> list[Row]:
        if found is None:
            missing = {
                "value": None,
                "epoch": epoch,
                "n": samples,
                "detail": "a sample is misclassified: no constraint set",
            }
            return [{"quantity": "kkt epsilon, relative", **missing}]
        loss = history_row(subject, epoch).get("log10_loss")
        values = {
            "kkt epsilon, relative": found.epsilon / found.size,
            "kkt delta, relative": found.delta / found.size**2,
            "kkt epsilon": found.epsilon,
            "kkt delta": found.delta,
            "cosine of weights and descent": found.cosine,
        }
        place = {"epoch": epoch, "n": samples} | ({} if loss is None or math.isnan(loss) else {"at": loss})
        return [{"quantity": name, "value": finite(value), **place} for name, value in values.items()]
