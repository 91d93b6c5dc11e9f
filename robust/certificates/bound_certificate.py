"""What certificates by bounds share: verdicts from proofs at one radius, and bisection for the largest radius."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.certificates.bounds import Unsupported
from robust.certificates.certificate import FALSIFIED, UNKNOWN, VERIFIED, Certificate, Certified
from robust.classifier import Classifier
from robust.numerics import exact_float32
from robust.randomness import Randomness


class BoundCertificate(Certificate):
    """Base of certificates that bound z_y - z_j from below over the whole ball: verified where all bounds exceed 0."""

    bisections: int = Field(
        default=0, ge=0, le=40, description="halvings in search of the largest radius; 0 reports eps where verified"
    )

    @model_validator(mode="after")
    def _needs_a_radius(self) -> BoundCertificate:
        if self.threat.eps is None:
            raise ValueError(f"{self.name} needs a radius: add for example eps: 8/255")
        return self

    @abstractmethod
    def proves(self, classifier: Classifier, images: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
        """Whether no image that the threat model accepts within `radius` [N] can change the class, [N]."""

    @abstractmethod
    def reproduces(self, classifier: Classifier, images: Tensor, logits: Tensor) -> bool:
        """Whether the bounds at radius 0 hold the logits [N,K] that the classifier really gave."""

    @torch.no_grad()
    def certify(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Certified:
        """Verdicts and radii (in the claim's norm) of images [N,C,H,W]; see `Certificate.certify`.

        Raises:
            Unsupported: if the bounds do not describe this network; the message names the reason.
        """
        if not len(images):
            return Certified(labels.new_zeros(0), torch.zeros(0, dtype=torch.float64, device=labels.device))
        with classifier.frozen(), exact_float32():  # the arithmetic in which attacks are judged
            logits = classifier(images)
            if not self.reproduces(classifier, images[:1], logits[:1]):
                raise Unsupported("the network's logits are not those of its operations: does it draw at random?")
            right = logits.argmax(1) == labels
            eps = torch.full_like(labels, 1, dtype=torch.float64) * self.threat.radius
            certain = self._holds(classifier, images, labels, eps, right)
            radius = self._radius(classifier, images, labels, right, certain)
        verdict = torch.full_like(labels, UNKNOWN)
        verdict[certain], verdict[~right] = VERIFIED, FALSIFIED
        return Certified(verdict, radius)

    def _holds(self, classifier: Classifier, images: Tensor, labels: Tensor, radius: Tensor, asked: Tensor) -> Tensor:
        """Whether the claim is proven within `radius` [N], [N]; false where it is not asked."""
        found = torch.zeros_like(asked)
        if asked.any():
            found[asked] = self.proves(classifier, images[asked], labels[asked], radius[asked])
        return found

    def _radius(self, classifier: Classifier, images: Tensor, labels: Tensor, right: Tensor, certain: Tensor) -> Tensor:
        """Certified radii [N]: eps where certain, sharpened by bisection (bounds only widen as the radius grows)."""
        eps = torch.full_like(labels, 1, dtype=torch.float64) * self.threat.radius
        low, high = torch.where(certain, eps, 0.0), torch.where(certain, eps.clamp_min(1.0), eps)
        for _ in range(self.bisections):
            middle = (low + high) / 2
            holds = self._holds(classifier, images, labels, middle, right)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return low
