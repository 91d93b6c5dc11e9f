"""Random noise: the yardstick that every gradient attack has to beat."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.attacks.attack import FixedBudget, broadcast
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import norm_of


class RandomNoise(FixedBudget):
    """Random noise: a single random perturbation of full size eps, with no look at the classifier.

    linf: every pixel +-eps with a fair coin; l2 and l1: a Gaussian or Laplace direction of length eps, uniform on the
    sphere (for l1: on its faces); then cut to the box. An attack that this beats is broken (Carlini et al. 2019,
    arXiv 1902.06705, section 5). Costs no pass.
    """

    name: ClassVar[str] = "random-noise"
    family: ClassVar[str] = "black box"
    source: ClassVar[str] = "Carlini et al. 2019, arXiv 1902.06705"

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; draws one value a pixel."""
        noise, shape = rng.fork("noise"), images.shape[1:]
        if self.threat.norm == "linf":
            delta = noise.uniform(shape, -1.0, 1.0, like=images).sign()
        else:
            draw = noise.normal if self.threat.norm == "l2" else noise.laplace
            delta = draw(shape, like=images)
            delta = delta / broadcast(norm_of(delta, self.threat.norm).clamp_min(1e-30), delta)
        return self.threat.project(images + self.threat.radius * delta, images)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """None: it does not look."""
        return (0, 0)
