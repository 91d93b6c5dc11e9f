"""Certificate first: which samples an attack need not be spent on, because the interval bound proves them already.

A proof cannot change a verdict, only its cost: a sound attack fails on a proven sample, and `correct` is the same with
and without. Whether the bound is worth its three forward passes depends on the attack, the network and eps alone, never
on the samples at hand, so that neither batch nor shard shows in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust.attacks.attack import Attack, FixedBudget
from robust.certificates.bounds import Unsupported, margin_bounds, reproduces
from robust.certificates.interval import verified
from robust.classifier import Classifier
from robust.randomness import Randomness

Screen = Callable[[Tensor, Tensor], Tensor]

WORTH = 20  # passes below which an attack is cheaper than asking first
DEAR = 500  # passes above which asking costs less than one in a hundred: no guess is worth a wrong one
# the bound's width on a grey image over the largest margin on noise: of four MNIST networks (plain, PGD-trained,
# provably trained, IBP) at eps from 0.002 to 0.3, none with a ratio above 13 had a single proven sample
HOPELESS = 20.0


def screen_for(classifier: Classifier, shape: tuple[int, ...], attack: object) -> Screen | None:
    """(images, labels) -> which samples are proven [N], or None where asking is impossible, hopeless or too dear.

    Args:
        classifier: in eval mode.
        shape: (C, H, W) of the images.
        attack: the evaluation; only attacks of a fixed budget can be saved.
    """
    if not isinstance(attack, FixedBudget) or classifier.random:
        return None
    try:
        if not _worthwhile(classifier, shape, attack):
            return None
    except Unsupported:
        return None

    @torch.no_grad()
    def screen(images: Tensor, labels: Tensor) -> Tensor:
        return verified(classifier, images, labels, attack.threat)

    return screen


@torch.no_grad()
def _worthwhile(classifier: Classifier, shape: tuple[int, ...], attack: Attack) -> bool:
    """Whether the attack is dear, the bound describes the network, and its width leaves any sample a chance."""
    like = torch.zeros(1, *shape, dtype=classifier.dtype, device=classifier.device)
    noise = Randomness.of(0, range(8), "certificate first").uniform(shape, like=like)
    logits = torch.cat([classifier(image[None]) for image in noise])  # one by one: memory must not decide
    classes = logits.shape[1]
    passes = sum(attack.passes(classes))
    if classes < 2 or passes < WORTH or not reproduces(classifier, noise[:1], logits[:1]):
        return False
    if passes > DEAR:
        return True
    top = logits.topk(2, dim=1).values
    grey = torch.full_like(like, 0.5)
    at_grey = classifier(grey)
    label = at_grey.argmax(1)
    apart = margin_bounds(classifier, grey, label, attack.threat.radius)
    width = (at_grey.gather(1, label[:, None]) - at_grey - apart).max()
    return bool(width <= HOPELESS * (top[:, 0] - top[:, 1]).max())
