"""CIFAR-100: 60,000 small photographs in a hundred classes, in the Python version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from robust.datasets.cifar_pickle import read_batch, read_pickle
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.files import DownloadableDataset
from robust.datasets.published import Published
from robust.datasets.root import root


class CIFAR100(DownloadableDataset):
    """CIFAR-100: photographs of a hundred kinds of things, 50,000 for training and 10,000 for testing, 32 x 32 colour.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). The labels are the hundred fine
    ones, named as in the file `meta`. Checksums: MD5 of the published files.
    """

    name: ClassVar[str] = "cifar100"
    family: ClassVar[str] = "colour 32x32"
    source: ClassVar[str] = "Krizhevsky 2009"

    checksums: ClassVar[Mapping[str, str]] = {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }

    def find(self, part: Part) -> tuple[Path, ...]:
        """The file of a part, and the one with the class names."""
        paths = (root() / "cifar-100-python" / part, root() / "cifar-100-python" / "meta")
        return paths if all(path.is_file() for path in paths) else ()

    def place(self, part: Part) -> str:
        """Where the files belong."""
        return f"{root() / 'cifar-100-python'} ({part} and meta)"

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,3,32,32] and labels 0..99."""
        batch, meta = files
        names = read_pickle(meta).get("fine_label_names")
        if not isinstance(names, list) or not names:
            raise DatasetError(f"{meta}: 'fine_label_names' is not a list of names; replace it by the published file")
        images, labels = read_batch(batch, "fine_labels", len(names))
        return Published(images, labels, tuple(map(str, names)))

    def fetch(self, datasets: Any, folder: Path) -> None:
        """torchvision fetches the Python version."""
        datasets.CIFAR100(folder, download=True)
