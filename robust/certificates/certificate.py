"""The certificate contract: sound answers only. Unknown is always allowed, a wrong `verified` never."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from robust.classifier import Classifier
from robust.method import Method
from robust.randomness import Randomness
from robust.threat import ThreatModel

UNKNOWN, VERIFIED, FALSIFIED = 0, 1, 2
VERDICTS = ("unknown", "verified", "falsified")


@dataclass(frozen=True)
class Certified:
    """verdict [N] int64 (0 unknown, 1 verified, 2 falsified) and certified radius [N] float64 (0 where none)."""

    verdict: Tensor
    radius: Tensor


class Certificate(Method):
    """Base of all certificates: proves that no image within eps of a correctly classified one changes its class."""

    kind: ClassVar[str] = "certificate"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    threat: ThreatModel = Field(default=ThreatModel(), description="norm and eps of the claim")

    @model_validator(mode="before")
    @classmethod
    def _threat_from_flat_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("norm" in data or "eps" in data):
            flat = {key: data[key] for key in ("norm", "eps") if key in data}
            data = {k: v for k, v in data.items() if k not in flat} | {"threat": flat}
        return data

    @abstractmethod
    def certify(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Certified:
        """A verdict and a radius for each image [N,C,H,W]; misclassified images are falsified with radius 0."""
