"""Last-layer Laplace: a Gaussian posterior over the last linear layer, which lowers confidence far from the data."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from robust.classifier import Classifier, last_linear
from robust.datasets.dataset import Dataset
from robust.defences.averaging import unbound
from robust.defences.defence import Defence, Material
from robust.detection.detector import head_of

PRECISIONS = tuple(10 ** (exponent / 4) for exponent in range(-16, 17))  # 1e-4 to 1e4


class LastLayerLaplace(Defence):
    """Laplace approximation of the last layer's posterior, with the probit prediction in closed form.

    Posterior N(W, (N A (x) B + tau I)^-1) with A = mean phi phi^T (phi: features and a 1 for the bias) and
    B = mean diag(p) - p p^T: the Kronecker-factored Gauss-Newton matrix of the training images. The logits become
    f_k / sqrt(1 + pi/8 v_k), v_k = sum_ij u_ki^2 (q_j phi)^2 / (N b_i a_j + tau) their posterior variance (Kristiadi,
    Hein & Hennig 2020, arXiv 2002.10118, eq. 8; Daxberger et al. 2021, arXiv 2106.14806). tau maximises the
    approximate evidence over a grid unless `precision` is given. Deterministic and differentiable; one more product
    with the features than the network. A label can change where the variances of two classes differ.
    """

    name = "last-layer-laplace"
    family = "Bayesian"
    source = "arXiv 2002.10118"
    needs: ClassVar[tuple[str, ...]] = ("train",)

    precision: float | None = Field(default=None, gt=0, description="tau of the prior; by the evidence when empty")
    samples: int = Field(default=10_000, ge=2, description="training images at most; counts are scaled to all of them")
    _posterior: Posterior | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, material: Material) -> LastLayerLaplace:
        """Fitted to the training images: one pass over them.

        Raises:
            ValueError: if they are missing, or the logits are not the last linear layer's output.
        """
        if material.train is None:
            raise unbound(self.name, "train")
        bound = self.model_copy()
        bound._posterior = fit(classifier, material.train, self.samples, self.precision)
        return bound

    def wrap(self, classifier: Classifier) -> Classifier:
        """The network with its logits scaled by their uncertainty."""
        if self._posterior is None:
            raise unbound(self.name, "train")
        return Uncertain(classifier, self._posterior)


class Posterior(NamedTuple):
    """Covariance of the last layer: eigenvectors of both factors, and 1 / (N b_i a_j + tau), all float64."""

    inputs: Tensor  # [D+1,D+1], columns q_j
    outputs: Tensor  # [K,K], columns u_i
    variances: Tensor  # [K,D+1]
    precision: float

    def logit_variance(self, features: Tensor) -> Tensor:
        """Variance [N,K] of each logit at features [N,D]."""
        spread = (with_one(features) @ self.inputs.to(features)) ** 2
        return spread @ self.variances.T.to(features) @ (self.outputs.T.to(features) ** 2)


def penultimate(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the last linear layer takes [N,D], and the logits [N,K], from one pass."""
    taken: list[Tensor] = []
    hook = last_linear(classifier.module).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        logits: Tensor = classifier(images)
    finally:
        hook.remove()
    return taken[-1].flatten(1), logits


def with_one(features: Tensor) -> Tensor:
    """Features [N,D] with a column of ones for the bias."""
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def fit(classifier: Classifier, train: Dataset, samples: int, precision: float | None) -> Posterior:
    """The posterior from the first training images."""
    images_seen, inner, outer, loss = 0, torch.zeros(()), torch.zeros(()), 0.0
    with classifier.frozen(), torch.no_grad():
        for images, labels, _ in train.subset(slice(0, samples)).batches(250):
            x = images.to(classifier.device, classifier.dtype)
            features, logits = penultimate(classifier, x)
            head_of(classifier, features, logits)
            phi, log = with_one(features.double().cpu()), logits.double().cpu().log_softmax(1)
            p = log.exp()
            images_seen += len(x)
            inner = inner + phi.T @ phi
            outer = outer + torch.diag(p.sum(0)) - p.T @ p
            loss -= float(log.gather(1, labels[:, None]).sum())
    a, inputs = torch.linalg.eigh(inner / images_seen)
    b, outputs = torch.linalg.eigh(outer / images_seen)
    curvature = len(train) * b.clamp_min(0)[:, None] * a.clamp_min(0)[None]
    layer = last_linear(classifier.module)
    size = sum(float(p.detach().double().square().sum()) for p in layer.parameters())
    scale = len(train) / images_seen
    tau = precision or max(PRECISIONS, key=lambda t: _evidence(-scale * loss, size, curvature, t))
    return Posterior(inputs, outputs, 1 / (curvature + tau), tau)


def _evidence(fit: float, size: float, curvature: Tensor, tau: float) -> float:
    """log p(data | tau) by Laplace: log-likelihood + log prior + half the log ratio of precisions."""
    return fit - tau * size / 2 - 0.5 * float((curvature / tau).log1p().sum())


class Uncertain(Classifier):
    """A classifier whose logits are divided by sqrt(1 + pi/8 v), v their variance under the posterior."""

    inner: Classifier

    def __init__(self, classifier: Classifier, posterior: Posterior) -> None:
        nn.Module.__init__(self)
        self.inner, self.module, self.posterior = classifier, classifier.module, posterior
        self.mean, self.std, self.num_classes = classifier.mean, classifier.std, classifier.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]."""
        features, logits = penultimate(self.inner, images)
        variance = self.posterior.logit_variance(features)
        return logits / (1 + math.pi / 8 * variance).sqrt()

    @property
    def random(self) -> bool:
        """As the network is."""
        return self.inner.random

    def views(self) -> dict[str, Classifier]:
        """`substitute`: the network itself."""
        return {"substitute": self.inner}

    def features(self, images: Tensor) -> Tensor:
        """The network's."""
        return self.inner.features(images)

    def normalise(self, images: Tensor) -> Tensor:
        """What the module sees."""
        return self.inner.normalise(images)
