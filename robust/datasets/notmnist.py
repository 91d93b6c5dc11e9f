"""notMNIST: glyphs A to J from many fonts; near out-of-distribution data for digits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from robust.datasets.dataset import Part
from robust.datasets.files import FileDataset
from robust.datasets.idx import NAMES, find_pair, read_pair
from robust.datasets.published import Published
from robust.datasets.root import root


class NotMNIST(FileDataset):
    """notMNIST: glyphs A to J taken from many fonts, 28 x 28 grey, in idx files named as MNIST's.

    Source: Bulatov, notMNIST dataset (2011), in MNIST's file format. The 10,000 test glyphs serve as
    out-of-distribution data; a training part is read where its files are there.
    """

    name: ClassVar[str] = "notmnist"
    family: ClassVar[str] = "grey 28x28"
    source: ClassVar[str] = "Bulatov 2011"

    classes: ClassVar[tuple[str, ...]] = tuple("ABCDEFGHIJ")

    def find(self, part: Part) -> tuple[Path, ...]:
        """Images and labels of a part."""
        return find_pair("notMNIST", NAMES[part])

    def place(self, part: Part) -> str:
        """Where the pair belongs."""
        return " and ".join(str(root() / "notMNIST" / "raw" / f"{name}.gz") for name in NAMES[part])

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,1,28,28] and labels 0..9."""
        images, labels = read_pair(files, self.classes)
        return Published(images[:, None], labels, self.classes)
