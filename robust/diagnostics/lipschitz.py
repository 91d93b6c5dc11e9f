"""Lipschitz constants in l2: exact per layer, bounded from above for a chain of layers, estimated from below locally.

Three numbers that are easily confused. The product of the layers' constants is an upper bound, valid everywhere and
usually far too large; the largest gradient norm seen is a lower bound on the true constant, no proof of anything; the
true constant lies between. All are in logit units per l2 distance of images in [0,1]: normalisation is included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from robust.attacks.attack import input_gradient
from robust.classifier import Classifier
from robust.losses import best_other, margin
from robust.randomness import Randomness, generator

ONE = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.Softplus, nn.ELU)
LINEAR = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
DENSE = 64  # inputs up to which a linear map is written out as a matrix
TOLERANCE = 1e-10  # of the largest eigenvalue of A^T A, relative


@dataclass(frozen=True)
class LayerConstant:
    """One layer of a chain: its name, type and l2 Lipschitz constant (None without a rule)."""

    name: str
    type: str
    constant: float | None


def spectral_norm(layer: nn.Module, shape: Sequence[int]) -> float:
    """Largest singular value of the linear part of a linear or affine layer, in float64.

    Fully connected and small layers by their singular values; anything else as the root of the largest eigenvalue of
    A^T A, with A^T from autograd (as Yoshida & Miyato 2017, arXiv 1705.10941, do by power iteration), found by ARPACK's
    Lanczos method: power iteration comes from below, and stops early where the next singular value is near. ARPACK's
    relative tolerance is added, so that a product of these norms stays an upper bound.

    Args:
        layer: maps [1, *shape] to a tensor; left as it was.
        shape: of one input, without the batch dimension.
    """
    if isinstance(layer, nn.Linear):
        return float(torch.linalg.matrix_norm(layer.weight.detach().double(), ord=2))
    device = next((p.device for p in layer.parameters()), torch.device("cpu"))
    linear, size = _linear_part(layer, tuple(shape), device), math.prod(shape)
    if size <= DENSE:
        basis = torch.eye(size, dtype=torch.float64, device=device).view(size, *shape)
        return float(torch.linalg.matrix_norm(linear(basis).flatten(1), ord=2))

    def squared(vector: Any) -> Any:
        with torch.enable_grad():
            leaf = torch.from_numpy(vector).view(1, *shape).to(device).requires_grad_(True)
            image = linear(leaf)
            (back,) = torch.autograd.grad(image, leaf, grad_outputs=image.detach())
        return back.flatten().cpu().numpy()

    start = generator(0, "Lanczos").standard_normal(size)
    if not squared(start).any():
        return 0.0
    operator = LinearOperator((size, size), matvec=squared, dtype=start.dtype)
    (largest,) = eigsh(operator, k=1, which="LA", v0=start, tol=TOLERANCE, return_eigenvectors=False)
    return math.sqrt(float(largest) * (1 + TOLERANCE))


def _linear_part(layer: nn.Module, shape: tuple[int, ...], device: torch.device) -> Callable[[Tensor], Tensor]:
    """x -> layer(x) - layer(0), in float64."""
    state = {name: value.detach().double() for name, value in layer.state_dict(keep_vars=True).items()}

    def call(x: Tensor) -> Tensor:
        mapped: Tensor = torch.func.functional_call(layer, state, (x,))
        return mapped

    with torch.no_grad():
        offset = call(torch.zeros((1, *shape), dtype=torch.float64, device=device))
    return lambda x: call(x) - offset


def layer_constants(classifier: Classifier, image: Tensor) -> list[LayerConstant]:
    """The l2 Lipschitz constant of each layer of a chain, normalisation first; `image` [C,H,W] gives the shapes.

    A chain is nested `nn.Sequential`s, or one layer. What is no chain (a residual block, an ODE) is one entry without
    a constant, which leaves the product undefined: no bound is better than a wrong one.
    """
    scale = 1.0 / float(classifier.std.min())
    found = [LayerConstant("normalisation", "Classifier", scale)]
    with classifier.frozen(), torch.no_grad():
        x = classifier.normalise(image[None].to(classifier.device, classifier.dtype))
        for name, layer in chain(classifier.module):
            constant = _constant(layer, x.shape[1:])
            found.append(LayerConstant(name, type(layer).__name__, constant))
            if constant is None:
                break
            x = layer(x)
    return found


def product_bound(constants: Sequence[LayerConstant]) -> float | None:
    """prod_l Lip(layer l), an upper bound on the Lipschitz constant of the logits (Szegedy et al. 2014, arXiv
    1312.6199, section 4.3); None where a layer has none.
    """
    if any(layer.constant is None for layer in constants):
        return None
    return math.prod(layer.constant or 0.0 for layer in constants)


def chain(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The layers of nested `nn.Sequential`s in their order, with their names."""
    if not isinstance(module, nn.Sequential):
        return [(prefix or type(module).__name__, module)]
    children = module.named_children()
    return [pair for name, child in children for pair in chain(child, f"{prefix}.{name}" if prefix else name)]


def _constant(layer: nn.Module, shape: Sequence[int]) -> float | None:
    if isinstance(layer, ONE):
        return 1.0
    if isinstance(layer, nn.LeakyReLU):
        return max(1.0, abs(layer.negative_slope))
    if isinstance(layer, nn.Sigmoid):
        return 0.25
    if isinstance(layer, nn.GELU):
        return 1.13  # the largest slope, 1.1290 at sqrt(2)
    if isinstance(layer, nn.MaxPool2d):
        return _pooling(layer)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_var is not None:
        gain = 1.0 if layer.weight is None else layer.weight.double().abs()
        return float((gain / (layer.running_var.double() + layer.eps).sqrt()).max())
    if isinstance(layer, (nn.Linear, *LINEAR)):
        return spectral_norm(layer, shape)
    return None


def _pooling(layer: nn.MaxPool2d) -> float:
    """sqrt of the number of windows that a pixel can stand in: 1 where windows do not overlap."""

    def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    size, stride = pair(layer.kernel_size), pair(layer.stride)
    return math.sqrt(math.prod(math.ceil(k / s) for k, s in zip(size, stride)))


def gradient_norms(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    objective: Callable[[Tensor, Tensor], Tensor] = margin,
) -> Tensor:
    """||grad_x objective(f(x), y)||_2 of each image, [N] float64; any per-sample loss will do."""
    gradient, _, _ = input_gradient(classifier, images, lambda logits: objective(logits, labels))
    return gradient.flatten(1).double().norm(dim=1)


def local_lipschitz(
    classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness, radius: float = 0.0, draws: int = 0
) -> Tensor:
    """Largest ||grad_x (z_y - max_{j != y} z_j)||_2 at each image and at random points around it, [N] float64.

    A lower bound on the local Lipschitz constant of the margin in the ball: what a finite number of looks has seen
    (Weng et al. 2018, arXiv 1801.10578, sample the same way).

    Args:
        classifier: frozen.
        images: [N,C,H,W] in [0,1]; labels: [N].
        rng: randomness of these samples.
        radius: l2 radius of the ball, in [0,1] image units; points are cut to the box.
        draws: random points beside the image itself, uniform in the ball.
    """
    largest = gradient_norms(classifier, images, labels)
    for draw in range(draws):
        direction = rng.fork("direction", draw).normal(images.shape[1:], like=images)
        size = rng.fork("size", draw).uniform(like=images) ** (1.0 / images[0].numel())
        step = radius * size / direction.flatten(1).norm(dim=1).clamp_min(1e-30)
        moved = (images + step.view(-1, 1, 1, 1) * direction).clamp(0, 1)
        largest = torch.maximum(largest, gradient_norms(classifier, moved, labels))
    return largest


def jacobian_rows(classifier: Classifier, images: Tensor) -> Tensor:
    """||grad_x z_k||_2 of each logit, [N,K] float64; the maximum over k is ||J||_{2,inf}. K backward passes."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        logits = classifier(leaf)
        rows = [torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=True)[0] for k in range(logits.shape[1])]
    return torch.stack([row.flatten(1).double().norm(dim=1) for row in rows], 1)


def certified_distance(classifier: Classifier, images: Tensor, labels: Tensor, bound: float) -> Tensor:
    """l2 distance within which nothing is misclassified, [N] float64: gap over a global bound; 0 where wrong.

    min_{j != y} (z_y - z_j) / (||w_y - w_j||_2 bound'), where the last layer is linear with rows w and bound' is
    the bound without it; without a linear last layer ||w_y - w_j|| is at most sqrt(2) times its constant.

    Args:
        classifier: frozen.
        images: [N,C,H,W]; labels: [N].
        bound: `product_bound` of the classifier.
    """
    with torch.no_grad():
        logits = classifier(images).double()
    last = chain(classifier.module)[-1][1]
    if isinstance(last, nn.Linear):
        weight = last.weight.detach().double()
        apart = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")[labels]  # [N,K]
        apart = apart * (bound / float(torch.linalg.matrix_norm(weight, ord=2)))
        gaps = logits.gather(1, labels[:, None]) - logits
        distances = (gaps / apart.clamp_min(1e-300)).scatter(1, labels[:, None], math.inf).amin(1)
    else:
        gaps = logits.gather(1, labels[:, None])[:, 0] - best_other(logits, labels)
        distances = gaps / (math.sqrt(2) * bound)
    return distances.clamp_min(0.0)
