"""IBP: training on the worst logits that interval arithmetic cannot rule out, for certificates rather than attacks."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from robust.certificates.bounds import margin_bounds, proven
from robust.classifier import Classifier
from robust.method import Exact, exact
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.randomness import Randomness
from robust.threat import ThreatModel


class IBP(Objective):
    """Interval bound propagation training: fits the worst logits of the whole ball, which proves robustness.

    L = kappa CE(f(x), y) + (1 - kappa) CE(z*, y), with z*_y = 0 and z*_j = -lower(z_y - z_j) over the linf ball of
    radius eps' (Gowal et al. 2018, arXiv 1810.12715, eq. 10 and 12; the last layer elided). After `nominal` of the
    training on clean images alone, eps' grows linearly from 0 to `ratio` eps and kappa falls from 1 to `kappa` until
    `warmup` of it is over (section 4). Costs about four forward and backward passes an image. For plain networks: a
    layer that mixes samples in train mode (BatchNorm) has no interval bounds.
    """

    name: ClassVar[str] = "ibp"
    family: ClassVar[str] = "certified training"
    source: ClassVar[str] = "arXiv 1810.12715"
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    eps: Exact = Field(default=exact("8/255"), gt=0, le=1, description="the ball's linf radius in [0,1] image units")
    ratio: float = Field(default=1.1, ge=1, description="radius trained on over eps: a margin for unseen images")
    kappa: float = Field(default=0.5, ge=0, le=1, description="final weight of the clean cross-entropy")
    nominal: float = Field(default=0.1, ge=0, lt=1, description="share of the training on clean images alone")
    warmup: float = Field(default=0.6, gt=0, le=1, description="share of the training after which the ramps are over")

    @model_validator(mode="after")
    def _ramp_has_room(self) -> IBP:
        if self.nominal >= self.warmup:
            raise ValueError(f"ibp: the ramps run from nominal to warmup; {self.nominal} is not below {self.warmup}")
        return self

    @property
    def threat(self) -> ThreatModel:
        """The ball trained against."""
        return ThreatModel(norm="linf", eps=self.eps)

    def ramp(self, progress: float) -> float:
        """Share of the radius in force when `progress` of the training is over, in [0,1]."""
        return min(1.0, max(0.0, (progress - self.nominal) / (self.warmup - self.nominal)))

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """The mixed loss; terms: natural and worst-case loss, clean accuracy, verified share at eps', the ramp.

        Raises:
            Unsupported: if the network has an operation without interval bounds; the message names it.
        """
        ramp = self.ramp(batch.progress)
        kappa = 1 - (1 - self.kappa) * ramp
        logits = classifier(batch.images)
        natural = F.cross_entropy(logits, batch.labels)
        apart = margin_bounds(classifier, batch.images, batch.labels, ramp * self.ratio * float(self.eps))
        worst = F.cross_entropy(-apart, batch.labels)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        terms = {
            "natural": natural.detach(),
            "worst_case": worst.detach(),
            "accuracy": right,
            "verified": proven(apart.detach(), batch.labels).float().mean(),
            "ramp": right.new_tensor(ramp),
        }
        return Loss(kappa * natural + (1 - kappa) * worst, terms)

    @torch.no_grad()
    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Verified at eps, [N] bool: no image of the ball changes the class."""
        return proven(margin_bounds(classifier, images, labels, float(self.eps)), labels)
