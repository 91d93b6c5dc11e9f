"""Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28 x 28, grey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from robust.datasets.idx import IdxDataset


class KMNIST(IdxDataset):
    """Kuzushiji-MNIST: cursive hiragana, 60,000 for training and 10,000 for testing, 28 x 28 grey.

    Source: Clanuwat et al., Deep Learning for Classical Japanese Literature (arXiv 1812.01718). Checksums: MD5 of the
    published .gz files.
    """

    name: ClassVar[str] = "kmnist"
    family: ClassVar[str] = "grey 28x28"
    source: ClassVar[str] = "arXiv 1812.01718"

    folder: ClassVar[str] = "KMNIST"
    classes: ClassVar[tuple[str, ...]] = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    }
