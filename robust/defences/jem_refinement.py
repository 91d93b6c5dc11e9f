"""Refinement by a joint energy model: noisy copies of the input walk uphill in log p(x) before they are classified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.defences.defence import Defence
from robust.energy import Langevin, to_unit_noise
from robust.randomness import generator


class JEMRefinement(Defence):
    """Mean logits of noisy copies, each refined by n Langevin steps on the classifier's own log p(x).

    z(x) = mean_c f(w_n(x + s e_c)), e_c ~ N(0, I), w_n the walk of `robust.energy.Langevin` (Grathwohl et al. 2020,
    arXiv 1912.03263, section 5.4; n = 0, 1 and 10 as JEM-0, JEM-1 and JEM-10, five copies, as in their code). For any
    differentiable classifier; meant for those trained by `jem`, with the same noise. Settings are for [-1,1] pixels.

    Its own gradient is that of the official code, which adds the steps outside the graph: the identity takes the place
    of the walk's derivative. Views: `bpda` is this rule by name, `through` differentiates every step, and `substitute`
    is the same without steps. The defence is random, so attacks average over it.

    Costs n + 1 forward and n backward passes a copy, 1 + 2 n in all; `through` as much again, and memory for n steps.
    """

    name = "jem-refinement"
    family = "refinement"
    source = "arXiv 1912.03263"

    steps: int = Field(default=10, ge=0, description="Langevin steps n from the input; 0 only averages over noise")
    step_size: float = Field(default=1.0, gt=0, description="alpha of a step, for [-1,1] pixels")
    sigma: float = Field(default=0.01, ge=0, description="deviation of a step's noise, for [-1,1] pixels")
    input_sigma: float = Field(
        default=0.1, ge=0, description="deviation of the copies' noise, for [-1,1] pixels; official 0.03"
    )
    copies: int = Field(default=5, ge=1, description="noisy copies whose logits are averaged")
    seed: int = Field(default=0, ge=0, lt=2**53, description="keys the defence's own draws")

    def wrap(self, classifier: Classifier) -> Classifier:
        """The refined classifier, with its views."""
        return Refined(classifier, self)

    @property
    def sampler(self) -> Langevin:
        """The dynamics of the refinement."""
        return Langevin(self.steps, self.step_size, self.sigma)


class Refined(Classifier):
    """A classifier behind its own refinement.

    Call number k draws from the stream (seed, defence, k), and `frozen()` starts again at k = 0: the evaluation of a
    shard meets the same draws in every run, while two calls in one evaluation differ.
    """

    inner: Classifier
    keeps_walk: ClassVar[bool] = False  # in the graph

    def __init__(self, classifier: Classifier, defence: JEMRefinement) -> None:
        nn.Module.__init__(self)
        self.inner, self.module, self.defence = classifier, classifier.module, defence
        self.mean, self.std, self.num_classes = classifier.mean, classifier.std, classifier.num_classes
        self._calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits [N,K] of the refined copies."""
        return self._mean(self.inner(self.refined(images)), images)

    def features(self, images: Tensor) -> Tensor:
        """Mean penultimate features of the refined copies."""
        return self._mean(self.inner.features(self.refined(images)), images)

    def refined(self, images: Tensor) -> Tensor:
        """The copies after the walk, [copies * N,C,H,W], all copies of one draw together."""
        packed = images.repeat(self.defence.copies, 1, 1, 1)
        draws = generator(self.defence.seed, self.defence.name, self._next_call())

        def normals(_: int = 0) -> Tensor:
            return torch.as_tensor(draws.standard_normal(tuple(packed.shape))).to(packed)

        if self.defence.input_sigma:
            packed = packed + to_unit_noise(self.defence.input_sigma) * normals()
        if not self.defence.steps:
            return packed
        walk = self.defence.sampler.walk(self.inner, packed, normals, through=self.keeps_walk)
        return walk.images if self.keeps_walk else packed + (walk.images - packed).detach()

    @property
    def random(self) -> bool:
        """Whether copies or steps are noisy, or the classifier behind them is random."""
        noisy_steps = self.defence.steps > 0 and self.defence.sigma > 0
        return self.defence.input_sigma > 0 or noisy_steps or self.inner.random

    def views(self) -> dict[str, Classifier]:
        """`bpda`, `through` and `substitute`; and those of the inner classifier."""
        without = self.defence.model_copy(update={"steps": 0})
        return {
            **self.inner.views(),
            "bpda": _View(self),
            "through": _ThroughWalk(self),
            "substitute": Refined(self.inner, without) if self.defence.steps else self.inner,
        }

    def normalise(self, images: Tensor) -> Tensor:
        """What the module behind the refinement sees."""
        return self.inner.normalise(images)

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """As `Classifier.frozen`; the draws start again from the first."""
        self._calls = 0
        with super().frozen():
            yield self

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls - 1

    def _mean(self, packed: Tensor, images: Tensor) -> Tensor:
        return packed.view(self.defence.copies, len(images), *packed.shape[1:]).mean(0)


class _View(Refined):
    """The same refinement and the same draws as another, whose calls it counts on with."""

    def __init__(self, refined: Refined) -> None:
        super().__init__(refined.inner, refined.defence)
        self.refined_by = refined

    def _next_call(self) -> int:
        return self.refined_by._next_call()


class _ThroughWalk(_View):
    """Differentiated through every step of the walk."""

    keeps_walk = True
