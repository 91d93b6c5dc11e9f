"""Which data sets are out-of-distribution, or shifted, for which: the near and far sets of detection tables.

Near: other classes in the same kind of picture, so that only the content differs. Far: another kind of picture. Shift:
the same classes in another kind of picture, where labels still hold and accuracy is what is measured. The division
follows OpenOOD (arXiv 2306.09301), as far as its sets are among ours. A set that shares classes with the
in-distribution one is left out (the ten Tiny ImageNet classes hold a cat and a frog, which CIFAR-10 has as well).
"""

from __future__ import annotations

GLYPHS = ("emnist-letters", "notmnist", "omniglot")
NEAR_AND_FAR: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "digits": (GLYPHS, ("fashion-mnist", "cifar10", "uniform-noise")),
    "mnist": ((*GLYPHS, "kmnist"), ("fashion-mnist", "cifar10", "uniform-noise")),
    "usps": ((*GLYPHS, "kmnist"), ("fashion-mnist", "cifar10", "uniform-noise")),
    "kmnist": (("mnist", *GLYPHS), ("fashion-mnist", "cifar10", "uniform-noise")),
    "fashion-mnist": ((), ("mnist", "notmnist", "cifar10", "uniform-noise")),
    "emnist-letters": (("mnist", "kmnist"), ("fashion-mnist", "cifar10", "uniform-noise")),
    "notmnist": (("mnist", "kmnist"), ("fashion-mnist", "cifar10", "uniform-noise")),
    "omniglot": (("mnist", "kmnist"), ("fashion-mnist", "cifar10", "uniform-noise")),
    "cifar10": (("cifar100",), ("svhn", "mnist", "uniform-noise")),
    "cifar100": (("cifar10",), ("svhn", "mnist", "uniform-noise")),
    "svhn": ((), ("cifar10", "cifar100", "notmnist", "uniform-noise")),
    "tiny-imagenet-10": ((), ("svhn", "mnist", "uniform-noise")),
}
DIGITS = ("mnist", "usps", "svhn", "digits")


def ood_sets(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the near and the far out-of-distribution sets of a dataset; noise alone for one not listed here."""
    return NEAR_AND_FAR.get(name, ((), ("uniform-noise",)))


def shift_sets(name: str) -> tuple[str, ...]:
    """Names of the data sets with the same classes, numbered alike, from another source."""
    return tuple(other for other in DIGITS if other != name) if name in DIGITS else ()
