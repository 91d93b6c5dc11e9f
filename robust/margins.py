"""Margins of a network over a training set: normalised by its weights in both ways, and smoothed.

For a network that is homogeneous of degree L, q_min = min_n (z_y - max_{j != y} z_j) grows as the L-th power of the
weights' norm; divided by it, it says how well the direction of the weights separates the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.log_losses import LossFunction, inverse_loss, log_losses, mean_log
from robust.losses import margin


@dataclass(frozen=True)
class Margins:
    """What one pass over the samples says.

    Attributes:
        log_loss: natural logarithm of the mean loss.
        smallest: q_min, the smallest margin; negative while a sample is misclassified.
        accuracy: share classified correctly.
        parameter_norm: rho = ||theta||_2 over all parameters.
        log_product: sum_l log ||W_l||_F over the layers with weights, biases left out.
        degree: L, or None for a network that is not homogeneous.
        samples: N.
        loss: the loss function.
    """

    log_loss: float
    smallest: float
    accuracy: float
    parameter_norm: float
    log_product: float
    degree: int | None
    samples: int
    loss: LossFunction

    @property
    def log_loss_sum(self) -> float:
        """log sum_n l_n."""
        return self.log_loss + math.log(self.samples)

    @property
    def product(self) -> float:
        """q_min / prod_l ||W_l||_F: the form of the published figure."""
        return scaled(self.smallest, self.log_product)

    @property
    def normalised(self) -> float | None:
        """q_min / rho^L (Lyu & Li 2020, arXiv 1906.05890)."""
        return None if self.degree is None else scaled(self.smallest, self._log_scale)

    @property
    def smoothed(self) -> float | None:
        """l^{-1}(sum_n l_n) / rho^L: never falls under gradient flow once the sum is below log 2."""
        if self.degree is None:
            return None
        return scaled(inverse_loss(self.log_loss_sum, self.loss), self._log_scale)

    @property
    def _log_scale(self) -> float:
        """L log rho."""
        return (self.degree or 0) * math.log(self.parameter_norm) if self.parameter_norm else -math.inf

    def row(self) -> dict[str, float]:
        """The numbers under the names that a training's history gives them; only those that are defined."""
        logarithm = math.log(self.smoothed) if self.smoothed is not None and self.smoothed > 0 else None
        found = {
            "log10_loss": self.log_loss / math.log(10),
            "smallest_margin": self.smallest,
            "margin_product": self.product,
            "margin_norm": self.normalised,
            "smoothed_margin": self.smoothed,
            "log_smoothed_margin": logarithm,
            "parameter_norm": self.parameter_norm,
            "train_accuracy": self.accuracy,
        }
        return {name: value for name, value in found.items() if value is not None}


def scaled(value: float, log_scale: float) -> float:
    """value / exp(log_scale), without forming the scale: a product of norms may leave a double's range."""
    if value == 0:
        return 0.0
    return math.copysign(math.exp(min(709.0, math.log(abs(value)) - log_scale)), value)


def margins_of(
    classifier: Classifier,
    dataset: Dataset,
    degree: int | None,
    loss: LossFunction = "cross-entropy",
    dtype: torch.dtype | None = None,
) -> Margins:
    """One forward pass over the set in eval mode, logits taken on in float64.

    Args:
        classifier: any network.
        dataset: labelled samples.
        degree: its degree of homogeneity, None where it has none.
        loss: the loss function.
        dtype: images are cast to this; the classifier's own when None.
    """
    logits, labels = all_logits(classifier, dataset, dtype)
    product, norm = weight_norms(classifier.module)
    return Margins(
        float(mean_log(log_losses(logits, labels, loss))),
        -float(margin(logits, labels).max()),
        float((logits.argmax(1) == labels).double().mean()),
        norm,
        product,
        degree,
        len(labels),
        loss,
    )


@torch.no_grad()
def all_logits(
    classifier: Classifier, dataset: Dataset, dtype: torch.dtype | None = None, size: int = 2000
) -> tuple[Tensor, Tensor]:
    """Logits [N,K] float64 and labels [N] of a whole set, in its order, on the classifier's device."""
    parts = []
    with classifier.frozen():
        for start in range(0, len(dataset), size):
            rows = np.arange(start, min(start + size, len(dataset)))
            pixels = torch.from_numpy(dataset.pixels[rows]).to(classifier.device)
            parts.append(classifier(pixels.to(dtype or classifier.dtype).div_(255)).double())
    return torch.cat(parts), torch.from_numpy(dataset.labels).to(classifier.device)


@torch.no_grad()
def weight_norms(module: nn.Module) -> tuple[float, float]:
    """sum_l log ||W_l||_F over parameters of two or more dimensions, and ||theta||_2 over all, in float64."""
    named = [(parameter.dim() >= 2, parameter) for parameter in module.parameters()]
    norms = torch.stack([torch.linalg.vector_norm(parameter, dtype=torch.float64) for _, parameter in named])
    weights = norms[torch.tensor([is_weight for is_weight, _ in named], device=norms.device)]
    return float(weights.log().sum()), float(torch.linalg.vector_norm(norms))
