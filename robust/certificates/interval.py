"""Interval: the cheapest sound certificate, a box carried through the network once."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.certificates.bounds import Unsupported, margin_bounds, proven, reproduces
from robust.certificates.certificate import FALSIFIED, UNKNOWN, VERIFIED, Certificate, Certified
from robust.classifier import Classifier
from robust.numerics import exact_float32
from robust.randomness import Randomness
from robust.threat import TOLERANCE, Norm, ThreatModel


class Interval(Certificate):
    """Interval bound propagation: verified where the box of all reachable logits leaves no other class room.

    Verified iff min_{j != y} lower(z_y - z_j) > 0 over the linf ball of radius eps cut with [0,1] (Gowal et al. 2018,
    arXiv 1810.12715, eq. 6-9), rounding included; exact for one linear layer, loose for networks not trained for it.
    An l2 or l1 ball of radius eps lies inside the linf ball of radius eps: sound there too, but very loose. Costs
    about three forward passes, and as many for each bisection.
    """

    name: ClassVar[str] = "interval"
    family: ClassVar[str] = "bound propagation"
    source: ClassVar[str] = "arXiv 1810.12715"

    bisections: int = Field(
        default=0, ge=0, le=40, description="halvings in search of the largest radius; 0 reports eps where verified"
    )

    @model_validator(mode="after")
    def _needs_a_radius(self) -> Interval:
        if self.threat.eps is None:
            raise ValueError("interval needs a radius: add for example eps: 8/255")
        return self

    @torch.no_grad()
    def certify(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Certified:
        """Verdicts and radii (in the claim's norm) of images [N,C,H,W]; see `Certificate.certify`.

        Raises:
            Unsupported: if interval arithmetic does not describe this network; the message names the reason.
        """
        if not len(images):
            return Certified(labels.new_zeros(0), torch.zeros(0, dtype=torch.float64, device=labels.device))
        with classifier.frozen(), exact_float32():  # the arithmetic in which attacks are judged
            logits = classifier(images)
            if not reproduces(classifier, images[:1], logits[:1]):
                raise Unsupported("the network's logits are not those of its operations: does it draw at random?")
            right = logits.argmax(1) == labels
            certain = right & verified(classifier, images, labels, self.threat)
            radius = self._radius(classifier, images, labels, right, certain)
        verdict = torch.full_like(labels, UNKNOWN)
        verdict[certain], verdict[~right] = VERIFIED, FALSIFIED
        return Certified(verdict, radius)

    def _radius(self, classifier: Classifier, images: Tensor, labels: Tensor, right: Tensor, certain: Tensor) -> Tensor:
        """Certified radii [N]: eps where certain, sharpened by bisection (bounds only widen as the radius grows)."""
        eps = torch.full_like(labels, 1, dtype=torch.float64) * self.threat.radius
        low, high = torch.where(certain, eps, 0.0), torch.where(certain, eps.clamp_min(1.0), eps)
        for _ in range(self.bisections):
            middle = (low + high) / 2
            holds = right & verified(classifier, images, labels, self.threat, middle)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return low


def verified(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: ThreatModel, radius: Tensor | None = None
) -> Tensor:
    """Whether no image that the threat model accepts can change the class, [N]; `radius` [N] replaces eps.

    Raises:
        Unsupported: see `robust.certificates.bounds.logit_box`.
    """
    size = images.new_full((len(images),), threat.radius) if radius is None else radius.to(images.dtype)
    # float32 lies to either side of eps, and evaluations accept images a little outside the ball
    size = size * (1 + 2 * torch.finfo(images.dtype).eps) + allowance(threat.norm, images)
    return proven(margin_bounds(classifier, images, labels, size), labels)


def allowance(norm: Norm, images: Tensor) -> float:
    """How far, in one pixel, an image may lie outside the ball of this norm and still be accepted as inside."""
    pixels = images[0].numel() if len(images) else 1
    return TOLERANCE * {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]
