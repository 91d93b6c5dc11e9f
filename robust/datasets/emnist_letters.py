"""EMNIST letters: handwritten letters A to Z, turned upright; near out-of-distribution data for digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from robust.datasets.dataset import Part
from robust.datasets.idx import IdxDataset, find_pair, read_pair
from robust.datasets.published import Published
from robust.datasets.root import root


class EMNISTLetters(IdxDataset):
    """EMNIST letters: handwritten A to Z, both cases in one class, 28 x 28 grey, turned upright.

    Source: Cohen, Afshar, Tapson, van Schaik, EMNIST (arXiv 1702.05373); 124,800 for training and 20,800 for testing.
    The published images are transposed (they were written column by column); here rows and columns are swapped back,
    so that the letters stand upright as MNIST's digits do. The published labels 1..26 become 0..25. Some letters are
    digits to the eye (O, I, l, S, Z): no detector can tell all of them from MNIST.
    """

    name: ClassVar[str] = "emnist-letters"
    family: ClassVar[str] = "grey 28x28"
    source: ClassVar[str] = "arXiv 1702.05373"

    folder: ClassVar[str] = "EMNIST"
    classes: ClassVar[tuple[str, ...]] = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def find(self, part: Part) -> tuple[Path, ...]:
        """Images and labels of a part."""
        return find_pair(self.folder, _names(part))

    def place(self, part: Part) -> str:
        """Where the pair belongs."""
        return " and ".join(str(root() / self.folder / "raw" / f"{name}.gz") for name in _names(part))

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,1,28,28], upright, and labels 0..25."""
        images, labels = read_pair(files, self.classes, first=1)
        return Published(images.swapaxes(1, 2)[:, None], labels, self.classes)

    def fetch(self, datasets: Any, folder: Path) -> None:
        """torchvision fetches all of EMNIST (some 560 MB) to unpack this part of it."""
        datasets.EMNIST(folder, split="letters", download=True)


def _names(part: Part) -> tuple[str, str]:
    return f"emnist-letters-{part}-images-idx3-ubyte", f"emnist-letters-{part}-labels-idx1-ubyte"
