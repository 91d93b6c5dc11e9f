"""CIFAR-10: 60,000 small photographs in ten classes, in the Python or the binary version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robust.datasets.cifar_pickle import read_batch
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.files import DownloadableDataset
from robust.datasets.published import Published
from robust.datasets.root import root

BATCHES: dict[Part, tuple[str, ...]] = {
    "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test": ("test_batch",),
}
RECORD = 1 + 3 * 32 * 32  # a label byte, then planar RGB


class CIFAR10(DownloadableDataset):
    """CIFAR-10: photographs of ten kinds of things, 50,000 for training and 10,000 for testing, 32 x 32 colour.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). Read from `cifar-10-batches-bin`
    or `cifar-10-batches-py`, whichever is there; both hold the same images in the same order. Checksums: MD5 (Python
    version) and SHA-1 (binary version) of the published files.
    """

    name: ClassVar[str] = "cifar10"
    family: ClassVar[str] = "colour 32x32"
    source: ClassVar[str] = "Krizhevsky 2009"

    classes: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    checksums: ClassVar[Mapping[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    }

    def find(self, part: Part) -> tuple[Path, ...]:
        """The batch files of a part, all in one version."""
        for folder, suffix in (("cifar-10-batches-bin", ".bin"), ("cifar-10-batches-py", "")):
            paths = tuple(root() / folder / f"{name}{suffix}" for name in BATCHES[part])
            if all(path.is_file() for path in paths):
                return paths
        return ()

    def place(self, part: Part) -> str:
        """Where the batch files belong."""
        python, binary = root() / "cifar-10-batches-py", root() / "cifar-10-batches-bin"
        return f"{python} ({', '.join(BATCHES[part])}) or at {binary} (the same with .bin)"

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,3,32,32] and labels 0..9, batch after batch."""
        batches = [
            read_records(path) if path.suffix == ".bin" else read_batch(path, "labels", len(self.classes))
            for path in files
        ]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return Published(images, labels, self.classes)

    def fetch(self, datasets: Any, folder: Path) -> None:
        """torchvision fetches the Python version."""
        datasets.CIFAR10(folder, download=True)


def read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N,3,32,32] uint8 and labels [N] int64 of one file of the binary version.

    Raises:
        DatasetError: if the file is damaged.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not content.size or content.size % RECORD:
        raise DatasetError(
            f"{path} is damaged: {content.size} bytes are no whole number of records of {RECORD}; "
            "replace it by the published file"
        )
    records = content.reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DatasetError(f"{path} is damaged: it holds the label {labels.max()}; replace it by the published file")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels
