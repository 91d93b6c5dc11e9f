"""Local and global Lipschitz constants of a network, one below and one above the true one."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.lipschitz import gradient_norms, jacobian_rows, layer_constants, local_lipschitz, product_bound
from robust.diagnostics.stages import batch_of, finite, stages
from robust.losses import cross_entropy
from robust.randomness import Randomness


class LocalLipschitz(Diagnostic):
    """Local Lipschitz estimates from gradients, and the global bound by the product of the layers' spectral norms.

    Rows, for each snapshot and split: mean, median and largest ||grad_x margin||_2 at the images and at random points
    within `radius` of them (a lower bound on the local constant: Weng et al. 2018, arXiv 1801.10578), the largest
    ||grad_x loss||_2 of cross-entropy, ||J||_{2,inf} = max_k ||grad_x z_k||_2; for each snapshot the spectral norm of
    every layer and their product, an upper bound on the constant of the logits (Szegedy et al. 2014, arXiv 1312.6199),
    or the layer that has no rule. The figure shows the gradient norms' distribution.
    """

    name: ClassVar[str] = "local-lipschitz"
    family: ClassVar[str] = "lipschitz"
    source: ClassVar[str] = "arXiv 1801.10578"

    samples: int = Field(default=500, ge=1, description="images looked at, of train and of test each")
    radius: float = Field(default=0.1, ge=0, description="l2 radius around an image, in [0,1] image units")
    draws: int = Field(default=4, ge=0, description="random points in it, beside the image itself")

    def measure(self, subject: Subject) -> Measured:
        """Rows and the figure lipschitz-gradients."""
        rows: list[Row] = []
        series: list[Row] = []
        for epoch, network in stages(subject):
            with network().frozen() as classifier:
                for split, dataset in (("train", subject.train), ("test", subject.test)):
                    images, labels, ids = batch_of(classifier, dataset, self.samples)
                    rng = Randomness.of(subject.seed, ids, self.name)
                    norms = local_lipschitz(classifier, images, labels, rng, self.radius, self.draws)
                    loss = gradient_norms(classifier, images, labels, cross_entropy)
                    jacobian = jacobian_rows(classifier, images)
                    found = {
                        "local lipschitz, mean": norms.mean(),
                        "local lipschitz, median": norms.median(),
                        "local lipschitz, largest": norms.max(),
                        "loss gradient, mean": loss.mean(),
                        "loss gradient, largest": loss.max(),
                        "jacobian 2-inf": jacobian.max(),
                    }
                    rows += [
                        {"quantity": name, "of": split, "value": finite(float(value)), "epoch": epoch, "n": len(labels)}
                        for name, value in found.items()
                    ]
                    ordered = norms.sort().values.cpu()
                    shares = torch.arange(1, len(ordered) + 1) / len(ordered)
                    series.append({"label": f"{split}, epoch {epoch}", "x": ordered.tolist(), "y": shares.tolist(),
                                   "mark": "steps"})  # fmt: skip
                constants = layer_constants(classifier, images[0])
            rows += [
                {
                    "quantity": "layer constant",
                    "of": f"{each.name} ({each.type})",
                    "value": each.constant,
                    "epoch": epoch,
                }
                for each in constants
            ]
            bound = product_bound(constants)
            detail = "" if bound is not None else f"no rule for {constants[-1].name} ({constants[-1].type})"
            rows.append({"quantity": "product bound", "value": bound, "epoch": epoch, "detail": detail})
        figure = {"id": "lipschitz-gradients", "title": "Gradient norms of the margin", "x_label": "l2 norm",
                  "y_label": "share of images at most x", "series": series, "y_range": [0, 1]}  # fmt: skip
        return Measured(rows, [figure])
