"""SWAG: predictions averaged over a Gaussian fitted to the weights that the end of the training visited."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.defences.averaging import Averaged, unbound
from robust.defences.defence import Defence, Material
from robust.randomness import generator

Weights = dict[str, Tensor]


class SWAG(Defence):
    """Stochastic weight averaging, Gaussian: weights drawn around the mean of the snapshots, predictions averaged.

    theta~ = mean + sqrt(s/2) sigma z_1 + sqrt(s / (2 (R - 1))) D z_2, with mean and variance sigma^2 of the weights
    over the snapshots, D [P,R] the last R deviations from the mean, z ~ N(0, I), s = `scale` (Maddox et al. 2019,
    arXiv 1902.02476, eq. 1 and algorithm 1, with the mean over all snapshots instead of a running one). `samples: 0`
    gives SWA, the mean alone. Snapshots come from `training.snapshots`; the paper takes one an epoch at a constant,
    high learning rate. The draws are made once, so the defended network is deterministic. BatchNorm averages are
    computed anew for each draw on the first `renorm` training images. Costs `samples` passes for one.
    """

    name = "swag"
    family = "Bayesian"
    source = "arXiv 1902.02476"
    needs: ClassVar[tuple[str, ...]] = ("snapshots", "train")

    samples: int = Field(default=10, ge=0, description="draws of the weights; the paper's 30. 0: the mean alone")
    rank: int = Field(default=20, ge=2, description="deviations kept at most; the paper's 20")
    scale: float = Field(default=1.0, ge=0, description="factor on the covariance")
    renorm: int = Field(default=2000, ge=2, description="training images for the averages of BatchNorm")
    seed: int = Field(default=0, ge=0, lt=2**53, description="keys the draws")
    _members: list[Classifier] | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, material: Material) -> SWAG:
        """Fitted to the snapshots.

        Raises:
            ValueError: if there are fewer than two snapshots, or BatchNorm needs images that are not there.
        """
        if len(material.snapshots) < 2:
            raise ValueError(
                f"{self.name} fits {len(material.snapshots)} snapshots, it needs two: set training.snapshots"
            )
        visited = [_weights(load()) for _, load in sorted(material.snapshots.items())]
        bound = self.model_copy()
        bound._members = [self._network(classifier, drawn, material.train) for drawn in self.draws(visited)]
        return bound

    def wrap(self, classifier: Classifier) -> Classifier:
        """The mean over the draws."""
        if self._members is None:
            raise unbound(self.name, "snapshots, train")
        return Averaged(classifier, self._members)

    def draws(self, visited: Sequence[Weights]) -> list[Weights]:
        """Weights drawn from the Gaussian fitted to those that were visited."""
        found = []
        stacked = {name: torch.stack([weights[name].double() for weights in visited]) for name in visited[0]}
        for sample in range(max(1, self.samples)):
            shared = generator(self.seed, self.name, sample, "deviations").standard_normal(self.rank)
            drawn = {}
            for name, values in stacked.items():
                mean, deviations = values.mean(0), (values - values.mean(0))[-self.rank :]
                if self.samples:
                    own = generator(self.seed, self.name, sample, name).standard_normal(tuple(mean.shape))
                    diagonal = values.var(0, correction=0).sqrt() * torch.as_tensor(own).to(mean)
                    low_rank = torch.tensordot(torch.as_tensor(shared[: len(deviations)]).to(mean), deviations, 1)
                    mean = mean + math.sqrt(self.scale / 2) * (diagonal + low_rank / math.sqrt(len(deviations) - 1))
                drawn[name] = mean.to(visited[0][name].dtype)
            found.append(drawn)
        return found

    def _network(self, classifier: Classifier, weights: Weights, train: Dataset | None) -> Classifier:
        network = copy.deepcopy(classifier)
        network.module.load_state_dict(weights, strict=False)
        layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
        if any(layer.track_running_stats for layer in layers):
            if train is None:
                raise unbound(self.name, "snapshots, train")
            _renormalise(network, layers, train, self.renorm)
        return network


def _weights(classifier: Classifier) -> Weights:
    """All learned weights by name; the averages of BatchNorm are no weights."""
    return {name: parameter.detach() for name, parameter in classifier.module.named_parameters()}


def _renormalise(network: Classifier, layers: Sequence[BatchNorm], train: Dataset, count: int) -> None:
    """BatchNorm's averages of these weights, as plain means over batches of training images."""
    network.eval()
    kept = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    with torch.no_grad():
        for images, _, _ in train.subset(slice(0, count)).batches(250):
            network(images.to(network.device, network.dtype))
    for layer, momentum in zip(layers, kept, strict=True):
        layer.momentum = momentum
    network.eval()
