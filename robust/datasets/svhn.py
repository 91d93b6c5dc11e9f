"""SVHN: house numbers photographed in the street, cropped to one digit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from robust.datasets.dataset import DatasetError, Part
from robust.datasets.files import DownloadableDataset
from robust.datasets.published import Published
from robust.datasets.root import root


class SVHN(DownloadableDataset):
    """SVHN, format 2: digits of house numbers, 73,257 for training and 26,032 for testing, 32 x 32 colour.

    Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning (2011). In the files the
    digit zero has the label 10; here it is 0, as in MNIST. Checksums: MD5 of the published .mat files.
    """

    name: ClassVar[str] = "svhn"
    family: ClassVar[str] = "colour 32x32"
    source: ClassVar[str] = "Netzer et al. 2011"

    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    checksums: ClassVar[Mapping[str, str]] = {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }

    def find(self, part: Part) -> tuple[Path, ...]:
        """The file of a part, in the folder svhn or at the top."""
        paths = (root() / "svhn" / f"{part}_32x32.mat", root() / f"{part}_32x32.mat")
        return next(((path,) for path in paths if path.is_file()), ())

    def place(self, part: Part) -> str:
        """Where the file belongs."""
        return str(root() / "svhn" / f"{part}_32x32.mat")

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,3,32,32] and labels 0..9, from the arrays X [32,32,3,N] and y [N,1]."""
        (path,) = files
        try:
            content = scipy.io.loadmat(path, variable_names=["X", "y"])
        except (OSError, EOFError, ValueError, TypeError, LookupError, MatReadError, NotImplementedError) as error:
            raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
        images, labels = content.get("X"), content.get("y")
        if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise DatasetError(f"{path}: X is not an array of bytes [32,32,3,N]; replace it by the published file")
        if labels is None or labels.size != images.shape[3] or not 1 <= labels.min() <= labels.max() <= 10:
            raise DatasetError(f"{path}: y does not hold a label 1..10 for each image of X")
        pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
        return Published(pixels, labels.ravel().astype(np.int64) % 10, self.classes)

    def fetch(self, datasets: Any, folder: Path) -> None:
        """torchvision fetches one part at a time."""
        for part in ("train", "test"):
            datasets.SVHN(folder / "svhn", split=part, download=True)
