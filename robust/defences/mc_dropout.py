"""MC dropout: predictions averaged over passes with dropout left on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier, averaged
from robust.defences.defence import Defence
from robust.randomness import generator


class MCDropout(Defence):
    """Averages the probabilities of several passes, each with its own dropped units.

    p(y|x) = 1/T sum_t softmax(f(x; mask_t))_y, an approximate Bayesian model average (Gal & Ghahramani 2016, arXiv
    1506.02142, eq. 6) for a network trained with dropout. Fresh masks on every call, each image its own: the defended
    network is random and says so; `substitute` is the network with dropout off. Costs T passes for one.
    """

    name = "mc-dropout"
    family = "Bayesian"
    source = "arXiv 1506.02142"

    passes: int = Field(default=20, ge=1, description="T, passes averaged")
    seed: int = Field(default=0, ge=0, lt=2**53, description="keys the masks")

    def wrap(self, classifier: Classifier) -> Classifier:
        """The average over masks.

        Raises:
            ValueError: if the network has no dropout.
        """
        if not _dropouts(classifier):
            raise ValueError(f"{self.name} needs a network with dropout: train for example tulip-cnn with dropout 0.3")
        return Dropped(classifier, self)


class Dropped(Classifier):
    """A classifier whose dropout stays on, averaged over passes.

    Call number k draws from the stream (seed, k), and `frozen()` starts again at k = 0, as for other defences.
    """

    inner: Classifier

    def __init__(self, classifier: Classifier, defence: MCDropout) -> None:
        nn.Module.__init__(self)
        self.inner, self.module, self.defence = classifier, classifier.module, defence
        self.mean, self.std, self.num_classes = classifier.mean, classifier.std, classifier.num_classes
        self._calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]: the log of the mean probability."""
        seed = int(generator(self.defence.seed, self.defence.name, self._calls).integers(2**62))
        self._calls += 1
        device = self.device
        layers = _dropouts(self.inner)
        modes = [layer.training for layer in layers]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for layer in layers:
                layer.train()
            try:
                return averaged(torch.stack([self.inner(images) for _ in range(self.defence.passes)]))
            finally:
                for layer, mode in zip(layers, modes, strict=True):
                    layer.train(mode)

    @property
    def random(self) -> bool:
        """Always."""
        return True

    def views(self) -> dict[str, Classifier]:
        """`substitute`: the network with dropout off; and those of the inner one."""
        return {**self.inner.views(), "substitute": self.inner}

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features with dropout off."""
        return self.inner.features(images)

    def normalise(self, images: Tensor) -> Tensor:
        """What the module sees."""
        return self.inner.normalise(images)

    @contextmanager
    def frozen(self) -> Iterator[Classifier]:
        """As `Classifier.frozen`; the masks start again from the first."""
        self._calls = 0
        with super().frozen():
            yield self


def _dropouts(classifier: Classifier) -> list[nn.Module]:
    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    return [layer for layer in layers if layer.p > 0]
