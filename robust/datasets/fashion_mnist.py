"""Fashion-MNIST: 70,000 articles of clothing, 28 x 28, grey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from robust.datasets.idx import IdxDataset


class FashionMNIST(IdxDataset):
    """Fashion-MNIST: articles of clothing, 60,000 for training and 10,000 for testing, 28 x 28 grey.

    Source: Xiao, Rasul, Vollgraf, Fashion-MNIST (arXiv 1708.07747). Checksums: MD5 of the published .gz files, and of
    what they unpack to.
    """

    name: ClassVar[str] = "fashion-mnist"
    family: ClassVar[str] = "grey 28x28"
    source: ClassVar[str] = "arXiv 1708.07747"

    folder: ClassVar[str] = "FashionMNIST"
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    checksums: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
