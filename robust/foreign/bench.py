"""The bench on which hypotheses about a network are tried: some labelled images at any shape, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.adapt import adapt
from robust.datasets.dataset import Dataset
from robust.foreign.black_box import plain
from robust.foreign.columns import best_assignment
from robust.foreign.loaded import ForeignError
from robust.foreign.preparation import Luma, Preparation, Prepared

BATCH = 32
# what a network can throw at images of a shape or type that it is not made for
UNFIT = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, KeyError, NotImplementedError)


@dataclass(frozen=True)
class Bench:
    """A network and labelled data; the first `search` samples choose among hypotheses, the others confirm the choice.

    Hypotheses are never confirmed on the samples that chose them, so the confirming numbers are unbiased.
    """

    module: nn.Module
    data: Dataset
    search: int

    def rows(self, part: str) -> slice:
        """`search`, `first` (a quarter of it, for long lists of hypotheses) or `confirm`."""
        if part == "confirm":
            return slice(self.search, len(self.data))
        return slice(0, self.search if part == "search" else max(20, self.search // 4))

    def images(self, shape: tuple[int, int, int], part: str) -> tuple[Tensor, Tensor]:
        """Images of this shape, and labels."""
        images, labels, _ = adapt(self.data, shape).batch(self.rows(part))
        return images, labels

    def answer(self, preparation: Preparation, part: str) -> tuple[Tensor, Tensor]:
        """All the network's outputs as logits [n,K'], before they are matched to classes, and labels [n].

        Raises:
            ForeignError: if the answer is no scores.
        """
        whole = preparation.model_copy(update={"columns": ()})
        images, labels = self.images(preparation.shape, part)
        return self.logits(whole, images), labels

    @torch.no_grad()
    def logits(self, preparation: Preparation, images: Tensor) -> Tensor:
        """Logits [n,K'] on the CPU."""
        classifier = assembled(self.module, preparation)
        parts = [classifier(x.to(classifier.device, classifier.dtype)).float().cpu() for x in images.split(BATCH)]
        return torch.cat(parts)

    def raw(self, preparation: Preparation, count: int = 2) -> Tensor | str:
        """What the network itself returns for the first images, or why it cannot take them."""
        images, _ = self.images(preparation.shape, "search")
        seen = images[:count]
        try:
            with torch.no_grad():
                taken = assembled(_Raw(self.module), preparation.model_copy(update={"answer": "logits", "columns": ()}))
                found = torch.cat([taken(x.to(taken.device, taken.dtype)).cpu() for x in seen.split(BATCH)])
        except UNFIT as error:
            if isinstance(error, ForeignError):
                raise
            lines = str(error).strip().splitlines()
            return lines[-1][:300] if lines else type(error).__name__
        return found if len(found) == len(seen) else f"{len(seen)} images gave an answer of shape {tuple(found.shape)}"

    def right(self, preparation: Preparation, part: str = "confirm") -> Tensor:
        """Which samples it gets right, [n]."""
        logits, labels = self.answer(preparation, part)
        columns = preparation.columns or tuple(range(min(preparation.num_classes, logits.shape[1])))
        return logits[:, list(columns)].argmax(1) == labels

    def outcome(self, preparation: Preparation, part: str) -> Outcome:
        """How well the network sees under a hypothesis.

        Where the classes are out of place, which shows in an accuracy near chance, the best matching of outputs to
        classes is taken: how well it sees comes before what it calls things.
        """
        logits, labels = self.answer(preparation, part)
        if not logits.isfinite().all():
            return Outcome(torch.zeros_like(labels, dtype=torch.bool), -math.inf)
        classes = preparation.num_classes
        right = logits.argmax(1) == labels
        near_chance = float(right.float().mean()) < 2.5 / classes and classes > 2
        if logits.shape[1] == classes and not near_chance:
            return Outcome(right, _likelihood(logits, labels))
        place = torch.tensor(best_assignment(logits, labels, classes))
        if (place < 0).any():  # fewer outputs than classes: some samples cannot be right
            return Outcome(logits.argmax(1) == place[labels], 0.0)
        chosen = logits[:, place]
        return Outcome(chosen.argmax(1) == labels, _likelihood(chosen, labels))


@dataclass(frozen=True)
class Outcome:
    """Which samples are right, [n], and the mean log-likelihood of the labels."""

    right: Tensor
    likelihood: float

    @property
    def accuracy(self) -> float:
        """Share of the samples that are right."""
        return float(self.right.float().mean())


def _likelihood(logits: Tensor, labels: Tensor) -> float:
    return float(torch.log_softmax(logits.double(), 1).gather(1, labels[:, None]).mean())


def assembled(module: nn.Module, preparation: Preparation) -> Classifier:
    """A classifier for trying a hypothesis; it leaves the module's layers alone, even a last softmax."""
    body: nn.Module = Prepared(module, preparation)
    classifier = Classifier(body, preparation.mean or None, preparation.std or None, preparation.num_classes)
    return Classifier(nn.Sequential(Luma(), classifier)) if preparation.grey else classifier


class _Raw(nn.Module):
    """The network's answer as it is, labels [N] as a column."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        found = plain(self.module(images))
        return found[:, None] if found.dim() == 1 else found


def better(first: Tensor, second: Tensor) -> float:
    """One-sided p of the sign test that `first` [n] gets more samples right than `second` on the same samples."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5, alternative="greater").pvalue)
