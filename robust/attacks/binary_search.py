"""Binary search: any fixed-budget attack made into a smallest-distance attack."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.attacks.attack import Attack, Context, SmallestDistance
from robust.attacks.nearest import Nearest, wrong_at
from robust.attacks.wrapper import Inner, with_inner_threat
from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import ThreatModel


class BinarySearch(SmallestDistance):
    """Bisects the radius of a fixed-budget attack for each sample, from the inner attack's own eps downward.

    The protocol of the robustness curves in Madry et al. 2018 (arXiv 1706.06083) and of Foolbox (arXiv 1707.04131).
    Radii lie on the exact grid eps k / 2^`halvings`, so a sample meets the same radii in any company; samples at one
    radius share a batch. A success nearer than its radius moves the upper end to its own distance.

    Cost: at most `halvings` + 1 times the inner attack's passes, plus one forward pass each.
    """

    name = "binary-search"
    family = "smallest distance"
    source = "arXiv 1707.04131"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    attack: Inner = Field(description="a fixed-budget attack; its eps is the largest radius tried")
    halvings: int = Field(default=8, ge=1, le=20, description="the answer is exact to eps / 2^halvings")

    @model_validator(mode="before")
    @classmethod
    def _norm_of_the_inner_attack(cls, data: Any) -> Any:
        data = with_inner_threat(data)
        if isinstance(data, dict):
            inner: ThreatModel = data["attack"].threat
            if data.get("threat") is inner:
                # the inner eps ends the search; it is no limit on what counts as a success
                data["threat"] = inner.model_copy(update={"eps": None})
        return data

    @model_validator(mode="after")
    def _one_norm(self) -> BinarySearch:
        if self.threat.norm != self.attack.threat.norm:
            raise ValueError(
                f"binary-search measures {self.threat.norm}, its attack works in {self.attack.threat.norm}"
            )
        return self

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """The search over the bound inner attack."""
        return self.model_copy(update={"attack": self.attack.bind(classifier, context)})

    def passes(self, num_classes: int) -> tuple[int, int]:
        """The inner attack's, once for each radius."""
        forward, backward = self.attack.passes(num_classes)
        return (self.halvings + 1) * (forward + 1), (self.halvings + 1) * backward

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest success over all radii tried, [N,C,H,W]."""
        nearest = Nearest(images, self.threat.norm)
        cells = 2**self.halvings
        low, high = [0] * len(images), [cells] * len(images)
        probes = dict.fromkeys(range(len(images)), cells)
        while probes:
            self._probe(classifier, images, labels, rng, nearest, probes)
            for sample, cell in probes.items():
                reached = self._cell(float(nearest.distance[sample]))
                if reached <= cell:
                    high[sample] = min(high[sample], reached)
                else:
                    low[sample] = cell  # at the largest radius this ends the sample's search
            probes = {s: (low[s] + high[s]) // 2 for s in probes if high[s] - low[s] > 1}
        return nearest.images

    def wrong(self, classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
        """Whether each image counts as a success, [N]: one forward pass."""
        return wrong_at(classifier, images, labels)

    def _cell(self, distance: float) -> int:
        """The smallest grid radius k that covers a distance, up to float32 rounding."""
        if distance == float("inf"):
            return 2**self.halvings + 1
        share = distance / self.attack.threat.radius * 2**self.halvings
        return max(1, -int(-(share - 1e-4) // 1))

    def _probe(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        rng: Randomness,
        nearest: Nearest,
        probes: dict[int, int],
    ) -> None:
        """Run the inner attack at each sample's radius; samples at one radius go together."""
        largest = self.attack.threat.eps or Fraction(0)
        for cell in sorted(set(probes.values())):
            attack = self.attack.at(largest * Fraction(cell, 2**self.halvings))
            rows = torch.tensor([s for s, c in probes.items() if c == cell], device=images.device)
            view, origin, truth = classifier.select(rows), images[rows], labels[rows]
            found = attack.perturb(view, origin, truth, rng.select(rows.cpu()).fork("radius", cell))
            found = found.clamp(0.0, 1.0)
            nearest.offer(found, self.wrong(view, found, truth), rows)
