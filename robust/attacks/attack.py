"""The attack contract, and the few lines that every gradient attack shares.

An attack promises one of two things: `FixedBudget.perturb` returns images inside the threat model's ball, chosen to
be misclassified; `SmallestDistance.minimise` returns misclassified images as near as it can find. Neither decides
whether it won: `robust.judging` checks every image again outside the attack. Batch in, tensors out, no state; all
randomness comes from `rng`; passes are counted by the classifier itself (`classifier.select(rows)`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.classifier import Classifier
from robust.method import Method
from robust.randomness import Randomness
from robust.threat import ThreatModel


@dataclass(frozen=True)
class Context:
    """What an adversary may have beside the classifier: other models by name, and data to prepare on.

    `images` [M,C,H,W] and `labels` [M] come from a split that is not evaluated; `seed` keys what the preparation draws.
    """

    models: Mapping[str, Classifier] = field(default_factory=dict)
    images: Tensor | None = None
    labels: Tensor | None = None
    seed: int = 0


class Attack(Method):
    """Base of all attacks. In a study file `norm` and `eps` may stand beside the attack's own fields.

    `norms` lists the supported norms, the paper's own first: it is the default. `needs` names what `bind` must bring:
    "models" (another classifier), "data" (images to prepare on).
    """

    kind: ClassVar[str] = "attack"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    min_classes: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ()

    threat: ThreatModel = Field(default=ThreatModel(), description="norm, eps and what the adversary knows")

    @model_validator(mode="before")
    @classmethod
    def _threat_from_flat_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        flat = {
            key: data.pop(key)
            for key in ("norm", "eps", "targeted", "queries")
            if key in data and key not in cls.model_fields
        }
        if flat:
            threat = data.get("threat", {})
            threat = threat.model_dump() if isinstance(threat, ThreatModel) else dict(threat)
            data["threat"] = {**threat, **flat}
        if isinstance(data.get("threat", {}), dict):
            data["threat"] = {"norm": cls.norms[0], **data.get("threat", {})}
        return data

    @model_validator(mode="after")
    def _norm_is_supported(self) -> Attack:
        if self.threat.norm not in self.norms:
            raise ValueError(f"{self.name} works in {', '.join(self.norms)}, not in {self.threat.norm}")
        return self

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """The attack made ready for this classifier: with its surrogate, or fitted on the context's data."""
        return self

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward and backward passes that one image costs at most: what the planner counts. (0, 0) if unknown."""
        return (0, 0)


class FixedBudget(Attack):
    """An attack with a given radius: returns its most adversarial image inside the ball."""

    @model_validator(mode="after")
    def _needs_a_radius(self) -> FixedBudget:
        if self.threat.eps is None:
            raise ValueError(f"{self.name} needs a radius: add for example eps: 8/255")
        return self

    def at(self, eps: Fraction) -> Self:
        """The same attack with another radius."""
        return self.model_copy(update={"threat": self.threat.model_copy(update={"eps": eps})})

    @abstractmethod
    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] in the ball around `images` and in [0,1], as adversarial as the attack can make them.

        Args:
            classifier: frozen (eval mode, weights without gradients).
            images: [N,C,H,W] in [0,1], all classified correctly when the evaluation calls.
            labels: true labels [N], int64.
            rng: randomness of these samples; `rng.fork("start", restart)`.
        """


class SmallestDistance(Attack):
    """An attack without a radius: returns the nearest misclassified image that it finds.

    With `threat.eps` set, success means a distance of at most eps; the distances themselves are kept either way.
    """

    @abstractmethod
    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Misclassified images [N,C,H,W] in [0,1] near `images`; the original where none was found."""


def input_gradient(
    classifier: Classifier, images: Tensor, objective: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of a per-sample objective with respect to the images.

    Args:
        classifier: already narrowed to the rows of `images`.
        images: [N,C,H,W].
        objective: logits [N,K] -> values [N]; summed, so no sample scales another.

    Returns:
        gradient [N,C,H,W], values [N] and logits [N,K], all detached. Non-finite gradient entries are set to 0: the
        step is then lost for that coordinate, and `robust.diagnostics` reports how often it happens.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        logits = classifier(leaf)
        values = objective(logits)
        found = torch.autograd.grad(values.sum(), leaf, allow_unused=True)[0] if values.requires_grad else None
    # a defence may cut the graph: its gradient is zero then, which `robust.diagnostics` reports
    gradient = torch.zeros_like(leaf) if found is None else found
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0), values.detach(), logits.detach()


def fooled(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each prediction is wrong, [N]; rows with a NaN logit do not count as fooled."""
    return (logits.argmax(1) != labels) & ~logits.isnan().any(1)


def broadcast(values: Tensor, images: Tensor) -> Tensor:
    """Per-sample values [N] shaped to multiply images [N,C,H,W]."""
    return values.view(-1, *([1] * (images.dim() - 1)))
