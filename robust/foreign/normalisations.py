"""The normalisations that image classifiers are trained with, as hypotheses for the probe."""

from __future__ import annotations

from dataclasses import dataclass

Values = tuple[float, ...]


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std of images x in [0,1], per channel; empty means the images as they are."""

    name: str
    mean: Values = ()
    std: Values = ()

    @property
    def inverse(self) -> Normalisation:
        """What undoes it: x std + mean."""
        mean = tuple(-m / s for m, s in zip(self.mean, self.std))
        return Normalisation(f"{self.name} undone", mean, tuple(1 / s for s in self.std))


PLAIN = Normalisation("the images in [0,1] as they are")
BYTES = Normalisation("0 to 255", (0.0,), (1 / 255,))
CENTRED = Normalisation("-1 to 1", (0.5,), (0.5,))
IMAGENET = Normalisation("ImageNet's", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COLOUR = (
    IMAGENET,
    Normalisation("CIFAR-10's", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Normalisation("CIFAR-10's with the std of image means", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    Normalisation("CIFAR-100's", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    Normalisation("ImageNet's of 0 to 255, means only", (0.4850, 0.4580, 0.4076), (1 / 255,) * 3),  # Caffe's
)
GREY = (
    Normalisation("MNIST's", (0.1307,), (0.3081,)),
    Normalisation("Fashion-MNIST's", (0.2860,), (0.3530,)),
)


def candidates(channels: int, own: Normalisation, declared: Normalisation) -> list[Normalisation]:
    """Every hypothesis once, the declared one first, those that undo another last.

    Args:
        channels: 1 or 3.
        own: the data's own mean and standard deviation.
        declared: what the user says.
    """
    published = [BYTES, *(COLOUR if channels == 3 else GREY), own, CENTRED]
    undone = [n.inverse for n in (declared, *(COLOUR[:2] if channels == 3 else GREY[:1]), own) if n.std]
    found: dict[tuple[Values, Values], Normalisation] = {}
    for hypothesis in (declared, PLAIN, *published, *undone):
        found.setdefault((hypothesis.mean, hypothesis.std), hypothesis)
    return list(found.values())
