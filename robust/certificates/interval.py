"""Interval: the cheapest sound certificate, a box carried through the network once."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from robust.certificates.bound_certificate import BoundCertificate
from robust.certificates.bounds import margin_bounds, proven, reproduces
from robust.classifier import Classifier
from robust.threat import TOLERANCE, Norm, ThreatModel


class Interval(BoundCertificate):
    """Interval bound propagation: verified where the box of all reachable logits leaves no other class room.

    Verified iff min_{j != y} lower(z_y - z_j) > 0 over the linf ball of radius eps cut with [0,1] (Gowal et al. 2018,
    arXiv 1810.12715, eq. 6-9), rounding included; exact for one linear layer, loose for networks not trained for it.
    An l2 or l1 ball of radius eps lies inside the linf ball of radius eps: sound there too, but very loose. Costs
    about three forward passes, and as many for each bisection.
    """

    name: ClassVar[str] = "interval"
    family: ClassVar[str] = "bound propagation"
    source: ClassVar[str] = "arXiv 1810.12715"

    def proves(self, classifier: Classifier, images: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
        """Whether the box of logits proves it, [N]."""
        return verified(classifier, images, labels, self.threat, radius)

    def reproduces(self, classifier: Classifier, images: Tensor, logits: Tensor) -> bool:
        """Whether the box of a point holds the logits there."""
        return reproduces(classifier, images, logits)


def verified(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: ThreatModel, radius: Tensor | None = None
) -> Tensor:
    """Whether no image that the threat model accepts can change the class, [N]; `radius` [N] replaces eps.

    Raises:
        Unsupported: see `robust.certificates.bounds.logit_box`.
    """
    return proven(margins_within(classifier, images, labels, threat, radius), labels)


def margins_within(
    classifier: Classifier, images: Tensor, labels: Tensor, threat: ThreatModel, radius: Tensor | None = None
) -> Tensor:
    """Lower bounds [N,K] of z_y - z_j over the images that the threat model accepts; see `margin_bounds`."""
    size = images.new_full((len(images),), threat.radius) if radius is None else radius.to(images.dtype)
    # float32 lies to either side of eps, and evaluations accept images a little outside the ball
    size = size * (1 + 2 * torch.finfo(images.dtype).eps) + allowance(threat.norm, images)
    return margin_bounds(classifier, images, labels, size)


def allowance(norm: Norm, images: Tensor) -> float:
    """How far, in one pixel, an image may lie outside the ball of this norm and still be accepted as inside."""
    pixels = images[0].numel() if len(images) else 1
    return TOLERANCE * {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]
