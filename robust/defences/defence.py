"""The defence contract: a wrapper around a classifier that says how it must be attacked.

A defence declares its randomness (then attacks average over it, EOT) and, where its own gradient is useless, other
ways to differentiate it as views of the classifier that it returns (`Classifier.views`: `bpda`, `substitute`,
`through`). What it declares is checked, not believed: `robust.diagnostics.masking` measures both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.method import Method
from robust.randomness import generator


@dataclass(frozen=True)
class Material:
    """What a defence may be fitted to.

    Attributes:
        train: the samples that the network was fitted to, with the labels it was given.
        snapshots: epoch -> the network as it was after that epoch; the epochs are those of `training.snapshots`.
    """

    train: Dataset | None = None
    snapshots: Mapping[int, Callable[[], Classifier]] = field(default_factory=dict)


class Defence(Method):
    """Base of all test-time defences."""

    kind: ClassVar[str] = "defence"
    needs: ClassVar[tuple[str, ...]] = ()  # what `bind` must bring: "train", "snapshots"

    def bind(self, classifier: Classifier, material: Material) -> Self:
        """The defence made ready for this classifier: fitted to its training data, or holding its snapshots."""
        return self

    @abstractmethod
    def wrap(self, classifier: Classifier) -> Classifier:
        """The defended classifier, images in [0,1] -> logits, with its `random` and `views()`."""


class Preprocessing(Defence):
    """Base of the defences that change the image before the classifier sees it: f(g(x)).

    `random` says whether g draws anything; `seed` keys what it draws.
    """

    random: ClassVar[bool] = False

    seed: int = Field(default=0, ge=0, lt=2**53, description="keys the defence's own draws")

    @abstractmethod
    def process(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """g(x), [N,C,H,W] in [0,1]; `draws` gives other numbers on every call and each row its own."""

    def backward(self, images: Tensor) -> Tensor:
        """The differentiable h(x) ~ g(x) whose gradient stands for g's (BPDA); the identity unless overridden."""
        return images

    def wrap(self, classifier: Classifier) -> Classifier:
        """The classifier behind the step, with the views `bpda` (true values, gradient of h) and `substitute`."""
        return Defended(classifier, self)


class Defended(Classifier):
    """A classifier behind a preprocessing step.

    Call number k draws from the stream (seed, defence, k), and `frozen()` starts again at k = 0: the evaluation of a
    shard meets the same draws in every run, while two calls in one evaluation differ.
    """

    inner: Classifier

    def __init__(self, classifier: Classifier, defence: Preprocessing) -> None:
        nn.Module.__init__(self)
        self.inner, self.module, self.defence = classifier, classifier.module, defence
        self.mean, self.std, self.num_classes = classifier.mean, classifier.std, classifier.num_classes
        self._calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K] of the processed images."""
        logits: Tensor = self.inner(self.processed(images))
        return logits

    def processed(self, images: Tensor) -> Tensor:
        """g(x) with the draws of this call."""
        draws = generator(self.defence.seed, self.defence.name, self._calls)
        self._calls += 1
        return self.defence.process(images, draws)

    @property
    def random(self) -> bool:
        """Whether the step or the classifier behind it draws anything."""
        return self.defence.random or self.inner.random

    def views(self) -> dict[str, Classifier]:
        """`bpda`: the declared backward rule; `substitute`: the undefended classifier; and those of the inner one."""
        return {**self.inner.views(), "bpda": _DeclaredBackward(self), "substitute": self.inner}

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features of the processed images."""
        return self.inner.features(self.processed(images))

    def normalise(self, images: Tensor) -> Tensor:
        """What the module behind the step sees."""
        return self.inner.normalise(images)

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """As `Classifier.frozen`; the draws start again from the first."""
        self._calls = 0
        with super().frozen():
            yield self


class _DeclaredBackward(Defended):
    """The same step and the same draws, differentiated as the defence declares: f(h(x) + [g(x) - h(x)])."""

    def __init__(self, defended: Defended) -> None:
        super().__init__(defended.inner, defended.defence)
        self.defended = defended

    def processed(self, images: Tensor) -> Tensor:
        smooth = self.defence.backward(images)
        return smooth + (self.defended.processed(images) - smooth).detach()
