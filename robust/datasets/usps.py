"""USPS: digits scanned from envelopes; a shifted test set for models of MNIST."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from robust.datasets.adapt import resized
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.files import FileDataset
from robust.datasets.published import Published
from robust.datasets.root import root


class USPS(FileDataset):
    """USPS: handwritten digits from envelopes, 7,291 for training and 2,007 for testing, 16 x 16 grey.

    Source: Hull, A database for handwritten text recognition research (1994), as the HDF5 file `usps.h5` with
    `train/data` [N,256] in 0..1, `train/target` [N] and the same under `test`. The grey levels are rounded to bytes.
    Reading it needs h5py (the extra `h5`).
    """

    name: ClassVar[str] = "usps"
    family: ClassVar[str] = "grey 16x16"
    source: ClassVar[str] = "Hull 1994"

    size: int = Field(default=16, ge=8, le=512, description="pixels: 16 as published, or resized (bilinear) to this")

    def find(self, part: Part) -> tuple[Path, ...]:
        """The one file of both parts."""
        path = root() / "USPS" / "usps.h5"
        return (path,) if path.is_file() else ()

    def place(self, part: Part) -> str:
        """Where the file belongs."""
        return str(root() / "USPS" / "usps.h5")

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,1,size,size] and labels 0..9."""
        (path,) = files
        values, labels = read_h5(path, part)
        if values.ndim != 2 or values.shape[1] != 256 or labels.shape != values.shape[:1]:
            raise DatasetError(
                f"{path}: {part} holds arrays of shape {values.shape} and {labels.shape}, not [N,256], [N]"
            )
        if not (values.min() >= 0 and values.max() <= 1 and labels.min() >= 0 and labels.max() <= 9):
            raise DatasetError(f"{path}: {part} holds grey levels outside 0..1 or labels outside 0..9")
        pixels = np.rint(values.astype(np.float64) * 255).astype(np.uint8).reshape(-1, 1, 16, 16)
        return Published(resized(pixels, (1, self.size, self.size)), labels.astype(np.int64), tuple("0123456789"))


def read_h5(path: Path, group: str) -> tuple[np.ndarray, np.ndarray]:
    """The arrays `data` and `target` of a group of an HDF5 file.

    Raises:
        DatasetError: if h5py is not installed, or the file is damaged or holds something else.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ModuleNotFoundError as error:
        raise DatasetError(f"{path} needs h5py; install the extra h5: pip install 'robust-flows[h5]'") from error
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[group]["data"]), np.asarray(file[group]["target"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
