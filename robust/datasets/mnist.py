"""MNIST: 70,000 handwritten digits, 28 x 28, grey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from robust.datasets.idx import IdxDataset


class MNIST(IdxDataset):
    """MNIST: handwritten digits, 60,000 for training and 10,000 for testing, 28 x 28 grey.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition (1998). Checksums:
    MD5 of the published .gz files, and of what they unpack to.
    """

    name: ClassVar[str] = "mnist"
    family: ClassVar[str] = "grey 28x28"
    source: ClassVar[str] = "LeCun et al. 1998"

    folder: ClassVar[str] = "MNIST"
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
