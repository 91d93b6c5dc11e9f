"""Outlier exposure: cross-entropy on the data, and uniform predictions asked for on images that are none of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PlainSerializer
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.datasets.adapt import adapt
from robust.datasets.dataset import DatasetSpec
from robust.datasets.uniform_noise import UniformNoise
from robust.method import Method
from robust.objectives.mixing import draws_of
from robust.objectives.objective import Batch, Loss, Objective, State

Outliers = Annotated[DatasetSpec, PlainSerializer(Method.settings, return_type=dict[str, Any])]


class OutlierExposure(Objective):
    """Cross-entropy on the data plus a price on confidence about outliers.

    L = mean_n CE(f(x_n), y_n) + weight mean_m CE(f(x'_m), uniform), CE(f, uniform) = logsumexp_k f_k - mean_k f_k
    (Hendrycks, Mazeika & Dietterich 2019, arXiv 1812.04606, section 4; weight 0.5 for image classification). The
    outliers x' come from another data set, brought to the data's shape; test it on others than these.
    Both batches pass the network together, as in the authors' code. Two forward and two backward passes an image.
    """

    name: ClassVar[str] = "outlier-exposure"
    family: ClassVar[str] = "regularisation"
    source: ClassVar[str] = "arXiv 1812.04606"

    outliers: Outliers = Field(default=UniformNoise(), description="a data set of images that are none of the classes")
    part: Literal["train", "test"] = Field(
        default="test", description="their split; sets without labels have a test split only, for others take train"
    )
    pool: int = Field(default=5000, ge=1, description="outlier images held, the first of the split")
    weight: float = Field(default=0.5, ge=0, description="price of confidence about outliers")

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """The pool of outliers as bytes: it travels with the checkpoint."""
        channels, height, width = images.shape[1:]
        found = adapt(self.outliers.load(self.part), (channels, height, width))
        pixels, _, _ = found.batch(slice(0, min(self.pool, len(found))))
        return {"outliers": (pixels * 255).round().to(torch.uint8)}

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the outliers are drawn for all of it at once"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Both terms; terms: accuracy, cross-entropy, the outliers' loss (log K when confident about none)."""
        rows = draws_of(batch, self.name).integers(len(state["outliers"]), size=len(batch.images))
        strange = state["outliers"][torch.from_numpy(rows)].to(batch.images) / 255
        known, unknown = classifier(torch.cat([batch.images, strange])).split(len(batch.images))
        fit, doubt = F.cross_entropy(known, batch.labels), uniform_cross_entropy(unknown).mean()
        right = (known.detach().argmax(1) == batch.labels).float().mean()
        terms = {"accuracy": right, "cross_entropy": fit.detach(), "outlier_loss": doubt.detach()}
        return Loss(fit + self.weight * doubt, terms)


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy [N] of the uniform distribution with softmax(logits): log K at least."""
    return logits.logsumexp(1) - logits.mean(1)
