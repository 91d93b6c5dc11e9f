"""CROWN: linear bounds pulled back through the network, far tighter than intervals and dearer by the layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.certificates.affine import steps_of, widest
from robust.certificates.bound_certificate import BoundCertificate
from robust.certificates.bounds import proven
from robust.certificates.interval import allowance, margins_within
from robust.certificates.linear_bounds import Intermediate, margins, relaxed
from robust.certificates.relaxations import Ball, Slope, ends
from robust.classifier import Classifier

WIDTH = 2**22  # numbers of all samples on the widest layer at once: 32 MB, a few times for every layer


class Crown(BoundCertificate):
    """CROWN and fast-lin: verified where linear bounds, pulled back layer by layer, leave no other class room.

    Verified iff min_{j != y} lower(z_y - z_j) > 0 over the ball, every ReLU between two lines and the ball met by the
    dual norm (Zhang et al. 2018, arXiv 1811.00866, theorem 3.2); an linf ball is cut with [0,1]. `parallel` lines of
    slope u / (u - l) are fast-lin, and give the bound of the dual network of Wong & Kolter 2018 (arXiv 1711.00851,
    theorem 1). Never looser than `interval`, whose bounds it is met with at the end. Computed in float64 and widened
    by the rounding of the network's own arithmetic.

    For Sequential networks of linear layers, convolutions, BatchNorm in eval mode, average pooling, flattening,
    dropout and ReLU; a network with any other layer is refused, and the layer named. Costs, `backward`, a gradient in
    float64 for every unit whose sign an interval leaves open, and twice that with `adaptive` lines: 25 ms an image on
    one core for that paper's MNIST network (5,000 units), far too much where convolutions have ten thousands.
    `interval` costs a few gradients for each class: 6 ms there.
    """

    name: ClassVar[str] = "crown"
    family: ClassVar[str] = "bound propagation"
    source: ClassVar[str] = "arXiv 1811.00866"

    slope: Slope = Field(
        default="parallel",
        description="of the line below a ReLU that crosses 0: u / (u - l) as the line above (parallel, fast-lin), or "
        "0 or 1, whichever leaves less room (adaptive, CROWN)",
    )
    intermediate: Intermediate = Field(
        default="backward",
        description="bounds before each ReLU: linear bounds at every layer (tight), or at the first, then intervals",
    )

    def proves(self, classifier: Classifier, images: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
        """Whether all bounds on z_y - z_j exceed 0, [N]."""
        return proven(self.margins(classifier, images, labels, radius), labels)

    def margins(self, classifier: Classifier, images: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
        """Lower bounds [N,K] of z_y - z_j over the ball of `radius` [N], in float64; 0 in the column of the label.

        Raises:
            Unsupported: for a network with other layers than those above; the message names the first.
        """
        steps, found = steps_of(classifier, tuple(images.shape[1:])), []
        room = allowance(self.threat.norm, images)  # evaluations accept images a little outside the ball
        size = radius.double() * (1 + torch.finfo(torch.float64).eps) + room
        for rows in torch.arange(len(images), device=images.device).split(max(1, WIDTH // widest(steps))):
            ball = Ball(images[rows].double(), size[rows], self.threat.norm)
            linear = margins(steps, ball, labels[rows], self.slope, self.intermediate)
            box = margins_within(classifier, images[rows], labels[rows], self.threat, radius[rows])
            found.append(torch.maximum(linear, box.double()))
        return torch.cat(found)

    def reproduces(self, classifier: Classifier, images: Tensor, logits: Tensor) -> bool:
        """Whether the steps read from the network give the logits that it gave, up to its rounding."""
        ball = Ball(images.double(), images.new_zeros(len(images), dtype=torch.float64), self.threat.norm)
        lower, upper = ends(*relaxed(steps_of(classifier, tuple(images.shape[1:])), ball, "parallel", "interval")[1])
        return bool(((lower <= logits) & (logits <= upper)).all())
