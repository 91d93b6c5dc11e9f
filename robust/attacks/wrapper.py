"""What the wrappers share: an attack inside an attack, run against another view of the classifier.

A view is a classifier made of classifiers: the same passes are counted, rows can be selected, and any attack works on
it unchanged. Whether an image fooled the real classifier is still judged outside, by the evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Self

import torch
from pydantic import Field, PlainSerializer, model_validator
from torch import Tensor, nn

from robust.attacks.attack import Attack, Context, FixedBudget
from robust.classifier import Classifier
from robust.method import Method
from robust.randomness import Randomness

# written out with its name and every field, as a study file would say it
Inner = Annotated[FixedBudget, PlainSerializer(Method.settings, return_type=dict[str, Any])]


def with_inner_threat(data: Any) -> Any:
    """Settings in which the outer attack's threat model defaults to the inner attack's.

    Raises:
        ValueError: if `attack` is no fixed-budget attack.
    """
    if not isinstance(data, Mapping):
        return data
    inner = data.get("attack")
    if not isinstance(inner, FixedBudget):
        raise ValueError("attack must be a fixed-budget attack, for example {name: pgd, norm: linf, eps: 8/255}")
    own = {"threat", "norm", "eps", "targeted", "queries"} & set(data)
    return dict(data) if own else {**data, "threat": inner.threat}


class Wrapper(FixedBudget):
    """Base of the wrappers: `attack` is run against `view(classifier)`, in the same threat model."""

    attack: Inner = Field(description="the fixed-budget attack that is wrapped")

    @model_validator(mode="before")
    @classmethod
    def _threat_of_the_inner_attack(cls, data: Any) -> Any:
        return with_inner_threat(data)

    @model_validator(mode="after")
    def _one_threat(self) -> Wrapper:
        if self.threat != self.attack.threat:
            raise ValueError(f"{self.name} runs in {self.threat}, its inner {self.attack.name} in {self.attack.threat}")
        return self

    @abstractmethod
    def view(self, classifier: Classifier) -> Classifier:
        """What the inner attack sees instead of `classifier`."""

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The inner attack's images [N,C,H,W], found on the view."""
        return self.attack.perturb(self.view(classifier), images, labels, rng.fork(self.attack.name))

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """The wrapper around the bound inner attack."""
        return self.model_copy(update={"attack": self.attack.bind(classifier, context)})

    def at(self, eps: Fraction) -> Self:
        """The same wrapper with another radius, inside and outside."""
        return super().at(eps).model_copy(update={"attack": self.attack.at(eps)})

    def passes(self, num_classes: int) -> tuple[int, int]:
        """What the inner attack costs."""
        return self.attack.passes(num_classes)


def declared_view(classifier: Classifier, name: str, remedy: str) -> Classifier:
    """The view that the classifier declares under `name`.

    Raises:
        ValueError: if it declares none.
    """
    views = classifier.views()
    if name not in views:
        raise ValueError(f"this classifier declares no {name!r} view ({', '.join(views) or 'none at all'}); {remedy}")
    return views[name]


class View(Classifier):
    """A classifier made from another, `inner`, whose class count, features and normalisation it shares."""

    inner: Classifier

    def __init__(self, inner: Classifier) -> None:
        nn.Module.__init__(self)
        self.inner, self.module = inner, inner.module
        self.mean, self.std, self.num_classes = inner.mean, inner.std, inner.num_classes

    @property
    def random(self) -> bool:
        """Whether two calls on the same images may differ."""
        return self.inner.random

    def views(self) -> dict[str, Classifier]:
        """The inner classifier's."""
        return self.inner.views()

    def features(self, images: Tensor) -> Tensor:
        """The inner classifier's features."""
        return self.inner.features(images)

    def normalise(self, images: Tensor) -> Tensor:
        """What the inner classifier's module sees."""
        return self.inner.normalise(images)

    @abstractmethod
    def select(self, rows: Tensor) -> Classifier:
        """The same view of some rows."""


class StraightThrough(View):
    """Values of one classifier with the gradient of another: z_value(x) forward, d z_gradient(x)/dx backward.

    The gradient's classifier may be any differentiable function in a `Classifier`: a user's own gradient.
    """

    gradient: Classifier

    def __init__(self, value: Classifier, gradient: Classifier) -> None:
        super().__init__(value)
        self.gradient = gradient

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K] of the first; the second is evaluated only where a gradient is wanted."""
        with torch.no_grad():
            logits: Tensor = self.inner(images)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return logits
        soft: Tensor = self.gradient(images)
        return soft + (logits - soft).detach()

    def select(self, rows: Tensor) -> StraightThrough:
        """The same pair for some rows."""
        return StraightThrough(self.inner.select(rows), self.gradient.select(rows))
