"""RAID: a second classifier looks at neurons of the first and says whether the image was attacked.

What it looks at is how far each neuron stands from what is usual for the predicted class. A pool of such detectors,
each with neurons of its own, is trained; which one judges an image is drawn at random, so that an attacker who knows
them all cannot know which to fool.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.detection.detector import Fitted, ImageDetector
from robust.method import Exact, exact
from robust.randomness import Randomness, generator
from robust.threat import ThreatModel

BATCH = 250  # images a pass: activations of all layers are held for one batch only


class RAID(ImageDetector):
    """Randomised adversarial-input detection: log-odds that an image is benign, from randomly chosen neurons.

    Source: Eniser, Christakis & Wuestholz 2020, arXiv 2002.02776. Activations of all linear and convolutional layers
    are candidates. Each member of the pool sees, for its neurons, the difference to the mean activation of benign
    training images predicted alike, in standard deviations, and its absolute value; it is a logistic regression where
    the paper trains a network, fitted on training images against PGD attacks on them (linf, `eps`). Attacks that were
    not trained on are what it is judged by.

    Costs one forward pass an image; fitting costs `steps` + 2 forward and `steps` backward passes.
    """

    name: ClassVar[str] = "raid"
    family: ClassVar[str] = "activations"
    source: ClassVar[str] = "Eniser et al. 2020, arXiv 2002.02776"

    neurons: int = Field(default=128, ge=1, description="neurons that each member of the pool sees, at most all")
    pool: int = Field(default=5, ge=1, description="detectors to draw from")
    eps: Exact = Field(default=exact("8/255"), description="linf radius of the attack trained on, in [0,1] pixels")
    steps: int = Field(default=10, ge=1, description="steps of that attack")
    seed: int = Field(default=0, ge=0, description="keys the choice of neurons")

    def fit_images(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Fitted:
        """`neurons` [P,M], `means` [P,K,M], `scales` [P,M], `weights` [P,2M] and `bias` [P]."""
        attack = PGD(threat=ThreatModel(norm="linf", eps=self.eps), steps=self.steps)
        batches = torch.arange(len(images)).split(BATCH)
        attacked = torch.cat(
            [attack.perturb(classifier, images[b], labels[b], rng.select(b).fork("attack")) for b in batches]
        )
        neurons = self._neurons(classifier, images[:1])
        benign, usual, classes = _activations(classifier, images, neurons)
        hostile, claimed, _ = _activations(classifier, attacked, neurons)
        fooled = claimed != labels  # the others are benign in all that matters
        if not fooled.any():
            raise ValueError("raid: PGD found no adversarial image to learn from; raise eps or take more images")
        members = [
            _fit_member(benign[:, i], usual, hostile[fooled, i], claimed[fooled], classes) for i in range(len(neurons))
        ]
        return {"neurons": neurons, **{key: torch.stack([member[key] for member in members]) for key in members[0]}}

    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """Log-odds of being benign, [N], by the member drawn for each sample."""
        f = {key: value.to(images.device) for key, value in fitted.items()}
        values, predicted, _ = _activations(classifier, images, f["neurons"])
        drawn = rng.fork("member").integers(len(f["bias"]), like=values)
        own = values[torch.arange(len(values), device=values.device), drawn]
        seen = _view(own, f["means"][drawn, predicted], f["scales"][drawn])
        return (seen * f["weights"][drawn]).sum(1) + f["bias"][drawn]

    def _neurons(self, classifier: Classifier, image: Tensor) -> Tensor:
        """Which neurons each member sees, [P,M]."""
        with torch.no_grad(), _recorded(classifier) as outputs:
            classifier(image)
        total = sum(output[0].numel() for output in outputs.values())
        if not total:
            raise ValueError("raid: the classifier has no linear or convolutional layer to look at")
        chosen = [generator(self.seed, "raid", i).permutation(total)[: self.neurons] for i in range(self.pool)]
        return torch.as_tensor(np.sort(chosen, axis=1), device=image.device)


def _fit_member(benign: Tensor, usual: Tensor, hostile: Tensor, claimed: Tensor, classes: int) -> Fitted:
    """One detector, from activations [N,M] and predictions [N] of benign images and of hostile ones."""
    means = benign.mean(0).repeat(classes, 1)  # a class that no benign image is predicted as takes the overall mean
    for k in usual.unique():
        means[k] = benign[usual == k].mean(0)
    scales = (benign - means[usual]).std(0, correction=0).clamp(min=1e-6)
    rows = torch.cat([_view(benign, means[usual], scales), _view(hostile, means[claimed], scales)])
    truth = np.r_[np.ones(len(benign)), np.zeros(len(hostile))]
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000).fit(rows.cpu().numpy(), truth)
    weights, bias = benign.new_tensor(model.coef_[0]), benign.new_tensor(model.intercept_[0])
    return {"means": means, "scales": scales, "weights": weights, "bias": bias}


def _view(values: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """What a member sees of activations [N,M]: signed and absolute differences in standard deviations, [N,2M]."""
    difference = ((values - means) / scales).clamp(-50, 50)  # a neuron that never moved must not outvote the rest
    return torch.cat([difference, difference.abs()], 1)


@torch.no_grad()
def _activations(classifier: Classifier, images: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor, int]:
    """Outputs of the neurons [P,M] as [N,P,M] in float64, the predicted classes [N], and the number of classes."""
    found, predicted, classes = [], [], 0
    for batch in images.split(BATCH):
        with _recorded(classifier) as outputs:
            logits = classifier(batch)
        flat = torch.cat([output.flatten(1) for output in outputs.values()], 1)
        found.append(flat[:, neurons].double())
        predicted.append(logits.argmax(1))
        classes = logits.shape[1]
    return torch.cat(found), torch.cat(predicted), classes


@contextmanager
def _recorded(classifier: Classifier) -> Iterator[dict[str, Tensor]]:
    """The latest output of each layer; a solver that calls a layer many times still gives one value a neuron."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        outputs[name] = output

    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, layer in classifier.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
