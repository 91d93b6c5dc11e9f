"""digits: the 1,797 handwritten digits that scikit-learn carries; real, small and offline."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from robust.datasets.checksums import verified
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.published import Published, PublishedDataset, held
from robust.randomness import generator

TEST = 360  # a fifth


class Digits(PublishedDataset):
    """digits: 1,797 handwritten digits embedded in scikit-learn, 8 x 8 grey; needs no files.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the test part, as
    `sklearn.datasets.load_digits` returns it. The grey levels v in 0..16 become u = round(255 v / 16); no two share a
    byte, so v = round(16 u / 255) gives them back. There is no published split: one shuffle, fixed for good, makes 360
    of them the test part and 1,437 the training part. Ids are positions in scikit-learn's order.
    """

    name: ClassVar[str] = "digits"
    family: ClassVar[str] = "grey 8x8"
    source: ClassVar[str] = "Alpaydin and Kaynak 1998"

    select: int = Field(default=200, ge=1, description="samples that choose the checkpoint")
    calibrate: int = Field(default=200, ge=1, description="samples that fit temperatures and thresholds")

    def files(self, part: Part) -> tuple[Path, ...]:
        """None: the set comes with scikit-learn."""
        return ()

    def whole(self, part: Part) -> Published:
        """Images [N,1,8,8] and labels 0..9 of a part."""
        everything = held((self.name,), embedded)
        order = generator(0, "parts", self.name).permutation(len(everything.labels))
        return everything.take(np.sort(order[:TEST] if part == "test" else order[TEST:]))


def embedded() -> Published:
    """All 1,797 digits, in scikit-learn's order.

    Raises:
        DatasetError: if scikit-learn, or the file in it, is missing.
    """
    # the file that load_digits reads: importing scikit-learn takes seconds, in every process of a run
    package = importlib.util.find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path("sklearn")
    path = folder / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DatasetError(f"digits: {path} is missing; install scikit-learn, which carries the images")
    rows = np.loadtxt(path, delimiter=",", dtype=np.int64)
    pixels = ((rows[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Published(pixels, rows[:, 64], tuple("0123456789"), verified([path], {}, ""))
