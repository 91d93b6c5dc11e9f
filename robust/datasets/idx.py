"""The idx format of MNIST and its kin: a header of sizes, then bytes, plain or under gzip.

Source: LeCun, Cortes, Burges, The MNIST database, "File formats": two zero bytes, a type code (8 = unsigned byte), the
number of dimensions, one big-endian 32-bit size for each, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from robust.datasets.adapt import adapt
from robust.datasets.dataset import Dataset, DatasetError, Part, Split
from robust.datasets.files import DownloadableDataset
from robust.datasets.published import Published
from robust.datasets.root import root

LARGEST = 2**33  # bytes: no published set of this format comes near it, a damaged header does
NAMES: dict[Part, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class IdxDataset(DownloadableDataset):
    """Base of the sets published as pairs of idx files (images, labels), as torchvision lays them out.

    Attributes:
        folder: the folder of the set; the files lie in `folder/raw` or in `folder`, with or without .gz.
        classes: class names, in label order.
    """

    folder: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    side: int | None = Field(
        default=None, ge=4, le=512, description="images are resized to this many pixels a side; as published when empty"
    )

    def load(self, split: Split) -> Dataset:
        """The split, at the size asked for: one family of images in many dimensions."""
        loaded = super().load(split)
        return loaded if self.side is None else adapt(loaded, (loaded.shape[0], self.side, self.side))

    def reading(self) -> dict[str, object]:
        """As the base's, without `side`: the files are read alike, and the resizing changes the digest itself."""
        return {key: value for key, value in super().reading().items() if key != "side"}

    def find(self, part: Part) -> tuple[Path, ...]:
        """Images and labels of a part."""
        return find_pair(self.folder, NAMES[part])

    def place(self, part: Part) -> str:
        """Where the pair belongs."""
        return " and ".join(str(root() / self.folder / "raw" / f"{name}.gz") for name in NAMES[part])

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,1,H,W] and labels of a part."""
        images, labels = read_pair(files, self.classes)
        return Published(images[:, None], labels, self.classes)

    def fetch(self, datasets: Any, folder: Path) -> None:
        """torchvision calls each of these sets as its folder is called."""
        getattr(datasets, self.folder)(folder, download=True)


def find_pair(folder: str, names: tuple[str, str]) -> tuple[Path, ...]:
    """The two files, from one folder; .gz first, since those have the published checksums."""
    for place in (root() / folder / "raw", root() / folder):
        found = [path for name in names for path in (place / f"{name}.gz", place / name) if path.is_file()]
        pair = [next((path for path in found if path.name.removesuffix(".gz") == name), None) for name in names]
        if all(pair):
            return tuple(path for path in pair if path)
    return ()


def read_pair(files: tuple[Path, ...], classes: tuple[str, ...], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images [N,H,W] uint8 and labels [N] int64; `first` is the label that the file gives to the first class.

    Raises:
        DatasetError: if a file is damaged, or the two do not belong together.
    """
    images, labels = (read_idx(path) for path in files)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DatasetError(
            f"{files[0]} holds an array of shape {images.shape} and {files[1]} one of {labels.shape}; "
            "expected images [N,H,W] and labels [N]"
        )
    if labels.size and not first <= labels.min() <= labels.max() < first + len(classes):
        raise DatasetError(
            f"{files[1]} has labels from {labels.min()} to {labels.max()}; "
            f"expected {first} to {first + len(classes) - 1}"
        )
    return images, labels.astype(np.int64) - first


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file of unsigned bytes, uint8; a name that ends in .gz is unpacked on the way.

    Raises:
        DatasetError: if the file is not of this format, or is longer or shorter than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            sizes = _header(file)
            body, rest = file.read(math.prod(sizes)), file.read(1)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
    if len(body) != math.prod(sizes) or rest:
        raise DatasetError(
            f"{path} is damaged: its header promises {math.prod(sizes)} bytes, "
            f"{'more' if rest else f'only {len(body)}'} follow; replace it by the published file"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(sizes)


def _header(file: gzip.GzipFile | BufferedReader) -> tuple[int, ...]:
    zeros, code, dimensions = struct.unpack(">HBB", file.read(4))
    if zeros or code != 8 or dimensions not in (1, 2, 3):
        raise ValueError("it does not begin like an idx file of unsigned bytes")
    sizes = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    if math.prod(sizes) > LARGEST:
        raise ValueError(f"its header asks for {math.prod(sizes)} bytes")
    return sizes
