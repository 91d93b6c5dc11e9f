"""Interval bounds of a classifier: a ball of images in, bounds on all its logits and on their differences out.

The module's own `forward` runs on a box (see `robust.certificates.boxes`). The bounds are sound for the network in the
precision in which it is run, and for every image that an evaluation accepts as inside the ball.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robust.certificates.boxes import Box, Unsupported, sum_error
from robust.classifier import Classifier, Metered
from robust.threat import TOLERANCE

__all__ = ["Unsupported", "bare", "logit_box", "margin_bounds", "proven", "reproduces"]


def bare(classifier: Classifier, dtype: torch.dtype) -> Classifier:
    """The classifier without its meters, if bounds can describe it in this precision.

    Raises:
        Unsupported: for a random classifier, one that is more than a module behind a normalisation, and for other
            precisions than float32 and float64.
    """
    while type(classifier) is Metered:
        classifier = classifier.inner
    if type(classifier) is not Classifier or classifier.random:
        raise Unsupported(f"bounds need a plain deterministic classifier, not {type(classifier).__name__}")
    if dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"bounds need float32 or float64, not {dtype}")
    return classifier


def images_around(classifier: Classifier, images: Tensor, radius: float | Tensor) -> Box:
    """What the module sees of all images within `radius` (a number or [N]) in linf, cut with the box [0,1].

    Radius and box are widened by the tolerance with which evaluations accept attacked images.
    """
    bound = torch.as_tensor(radius, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1) + TOLERANCE
    lower, upper = (images - bound).clamp_min(-TOLERANCE), (images + bound).clamp_max(1 + TOLERANCE)
    return Box.between(classifier.normalise(lower), classifier.normalise(upper))


def logit_box(classifier: Classifier, images: Tensor, radius: float | Tensor) -> Box:
    """A box that holds the logits [N,K] of every image within `radius` in linf of `images` [N,C,H,W].

    Costs about three forward passes; differentiable in the weights.

    Raises:
        Unsupported: for an operation without a rule, a layer in train mode that mixes or draws, a random classifier
            or one that is more than a module behind a normalisation.
    """
    classifier = bare(classifier, images.dtype)
    start = images_around(classifier, images, radius)
    try:
        found = classifier.module(start)
    except (Unsupported, torch.OutOfMemoryError):
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        # code that does something else than arithmetic with its input fails on a box in a way of its own
        raise Unsupported(f"{type(classifier.module).__name__} does not run on intervals: {error}") from error
    if not isinstance(found, Box) or found.dim() != 2 or len(found.shape) != 2 or found.size(0) != len(images):
        raise Unsupported(f"{type(classifier.module).__name__} does not return logits [N,K]")
    return found


def margin_bounds(classifier: Classifier, images: Tensor, labels: Tensor, radius: float | Tensor) -> Tensor:
    """Lower bounds [N,K] of z_y - z_j over all images within `radius` in linf; 0 in the column of the label y.

    Behind a final linear layer W h + b the difference is one linear form of h, bounded by
    (w_y - w_j) m - |w_y - w_j| r + b_y - b_j (Gowal et al. 2018, arXiv 1810.12715, section 3, "elision of the last
    layer"); else lower(z_y) - upper(z_j).

    Raises:
        Unsupported: see `logit_box`.
    """
    found = logit_box(classifier, images, radius)
    own = F.one_hot(labels, found.shape[1]).bool()
    if found.linear is None:
        lower, upper = found.ends
        apart = lower.gather(1, labels[:, None]) - upper
    else:
        apart = _differences(*found.linear, labels)
    return apart.masked_fill(own, 0.0)


def proven(apart: Tensor, labels: Tensor) -> Tensor:
    """Whether all lower bounds [N,K] of z_y - z_j but the label's own are above 0, [N]; false for NaN."""
    own = F.one_hot(labels, apart.shape[1]).bool()
    return ((apart > 0) | own).all(1)


def reproduces(classifier: Classifier, images: Tensor, logits: Tensor) -> bool:
    """Whether the bounds at radius 0 hold the logits [N,K] that the classifier really gave: a test of the rules.

    A network that draws without saying so, or that reads its input in a way the rules do not see, fails here.
    """
    middle, radius = logit_box(classifier, images, 0.0).centred
    return bool(((logits - middle).abs() <= radius).all())


def _differences(box: Box, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    centre, radius = box.centred
    error = 5 * sum_error(weight.shape[1], centre)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    # rounding of the two logits themselves and of ours
    slack = error * (F.linear(centre.abs() + radius, weight.abs()) + bias.abs())
    rows, values = [], []
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        apart = weight[label] - weight
        middle = F.linear(centre[mine], apart, bias[label] - bias)
        loose = F.linear(radius[mine], apart.abs())
        values.append(middle - loose - slack[mine] - slack[mine, label][:, None])
        rows.append(mine)
    if not rows:
        return centre.new_zeros(0, len(weight))
    return torch.cat(values)[torch.cat(rows).argsort()]
