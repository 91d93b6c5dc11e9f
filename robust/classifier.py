"""Classifier: the one shape in which every model is attacked, calibrated and certified.

Images in [0,1] go in, logits come out; normalisation lives inside, so eps always means what it says. `Metered` is
the same classifier with a meter on it: the evaluation hands that to attacks, and passes are counted per sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A module with its normalisation inside.

    Args:
        module: takes normalised images [N,C,H,W], returns logits [N,K].
        mean, std: per channel, in units of the [0,1] image; None for a module that takes [0,1] as it is.
        num_classes: K, found by a forward pass where it is not given.

    Raises:
        ValueError: if std is not positive, or mean and std differ in length.
    """

    mean: Tensor
    std: Tensor
    _scaled: bool = True

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.module = module if isinstance(module, nn.Module) else _Function(module)
        self._scaled = std is not None
        mean, std = tuple(mean or (0.0,)), tuple(std or (1.0,))
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std need one value per channel and std above 0, got {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K] of images [N,C,H,W] in [0,1]."""
        logits: Tensor = self.module(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """What the module itself sees."""
        shifted = images - self.mean.to(images.dtype)
        # two passes over the pixels less, which a small net's attack notices; the shift keeps the images from being
        # the module's own input, which it might overwrite
        return shifted / self.std.to(images.dtype) if self._scaled else shifted

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features [N,D]: the module's own `features`, else the input of its last linear layer."""
        own = getattr(self.module, "features", None)
        if callable(own) and not isinstance(own, nn.Module):  # many networks call their trunk `features`
            found: Tensor = own(self.normalise(images))
            return found.flatten(1)
        taken: list[Tensor] = []
        hook = last_linear(self.module).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
        try:
            self(images)
        finally:
            hook.remove()
        return taken[-1].flatten(1)

    @property
    def random(self) -> bool:
        """Whether two calls on the same images may differ, as the module declares (`random = True`)."""
        return bool(getattr(self.module, "random", False))

    def views(self) -> dict[str, Classifier]:
        """Other ways to take this classifier's gradient, by name, as the module's `gradient_views()` declares them.

        `bpda`: the same values with a declared backward rule; `substitute`: a differentiable stand-in, such as a
        fixed-step copy of an adaptive solver; `through`: the same values, differentiated through a test-time loop.
        """
        declare = getattr(self.module, "gradient_views", None)
        return {name: self.twin(module) for name, module in declare().items()} if callable(declare) else {}

    def twin(self, module: nn.Module) -> Classifier:
        """Another module behind this classifier's normalisation."""
        if isinstance(module, Classifier):
            return module
        twin = Classifier(module, num_classes=self.num_classes)
        twin.mean, twin.std, twin._scaled = self.mean, self.std, self._scaled
        return twin

    def select(self, rows: Tensor) -> Classifier:
        """The classifier as seen by some rows of the batch: itself. A metered one counts for those rows alone."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights live; the CPU for a module without any."""
        return next((p.device for p in self.parameters()), self.mean.device)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type: what images are cast to."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), self.mean.dtype)

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """Eval mode and no gradient to any weight; every module's mode and every flag are restored whatever happens."""
        modes = [(module, module.training) for module in self.modules()]
        flags = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
        try:
            self.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            yield self
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


class Metered(Classifier):
    """A classifier that counts, per sample, the images it classified and the gradients taken through it.

    An attack that drops samples from its batch says which ones remain: `classifier.select(rows)(images[rows])`.
    Packed batches (several restarts or targets of each row, sample-major or not) count once for each copy.
    """

    def __init__(self, classifier: Classifier, samples: int) -> None:
        nn.Module.__init__(self)
        self.inner = classifier
        self.num_classes = classifier.num_classes
        self.mean, self.std = classifier.mean, classifier.std
        self.module = classifier.module
        self.forwards = torch.zeros(samples, dtype=torch.int64)
        self.backwards = torch.zeros(samples, dtype=torch.int64)
        self._rows = torch.arange(samples)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]; counts one forward pass a row, and one backward pass when a gradient flows back."""
        copies, rest = divmod(len(images), len(self._rows)) if len(self._rows) else (0, len(images))
        if rest:
            raise ValueError(
                f"{len(images)} images for {len(self._rows)} rows: call classifier.select(rows) with the rows you pass"
            )
        rows = self._rows
        self.forwards[rows] += copies
        logits: Tensor = self.inner(images)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count_backward(rows, copies))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features, counted as one forward pass a row."""
        self.forwards[self._rows] += len(images) // max(1, len(self._rows))
        return self.inner.features(images)

    def normalise(self, images: Tensor) -> Tensor:
        """What the module itself sees."""
        return self.inner.normalise(images)

    @property
    def random(self) -> bool:
        """Whether two calls on the same images may differ."""
        return self.inner.random

    def views(self) -> dict[str, Classifier]:
        """The inner classifier's views, counted by the same meter."""
        return {name: self._view(inner, self._rows) for name, inner in self.inner.views().items()}

    def select(self, rows: Tensor) -> Metered:
        """A view whose rows are `rows` (mask or positions) of this one; the counts are shared."""
        return self._view(self.inner, self._rows[rows.cpu()])

    def on(self, inner: Classifier) -> Metered:
        """The same rows of another classifier, counted by the same meter."""
        return self._view(inner, self._rows)

    def _view(self, inner: Classifier, rows: Tensor) -> Metered:
        view = Metered(inner, 0)
        view.forwards, view.backwards, view._rows = self.forwards, self.backwards, rows
        return view

    def _count_backward(self, rows: Tensor, copies: int) -> None:
        self.backwards[rows] += copies


def averaged(logits: Tensor) -> Tensor:
    """Log of the mean probability over the first axis: [M,N,K] -> [N,K], the logits of an ensemble."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


def last_linear(module: nn.Module) -> nn.Linear:
    """The last fully connected layer.

    Raises:
        ValueError: if there is none; the remedy is a `features` method on the module.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(module).__name__} has no linear layer: give it a method features(images) -> [N,D]")
    return layers[-1]


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)
