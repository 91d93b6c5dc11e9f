"""Tiny ImageNet, ten classes: small photographs of things that CIFAR does not show."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from robust.datasets.dataset import DatasetError, Part
from robust.datasets.decoded import DecodedFiles, kept
from robust.datasets.files import FileDataset
from robust.datasets.published import Published
from robust.datasets.root import root

FOLDER = "tiny-imagenet-10"


class TinyImageNet10(FileDataset):
    """Ten classes of Tiny ImageNet, a stand-in for ImgNet10: 2,000 training and 500 test images, 64 x 64 colour.

    Source: Le and Yang, Tiny ImageNet Visual Recognition Challenge (2015); ImageNet's terms apply. Read as unpacked:
    `train/<wnid>/images/*.JPEG`, `val/images/*.JPEG` with `val/val_annotations.txt`, `wnids.txt` (the classes, in label
    order) and `words.txt` (their names). The validation images are the test part. Two classes, Egyptian cat and
    bullfrog, lie within CIFAR-10's: it is no clean out-of-distribution set for that one.
    """

    name: ClassVar[str] = "tiny-imagenet-10"
    family: ClassVar[str] = "colour 64x64"
    source: ClassVar[str] = "Le and Yang 2015"

    select: int = Field(default=200, ge=1, description="samples that choose the checkpoint")
    calibrate: int = Field(default=200, ge=1, description="samples that fit temperatures and thresholds")

    def find(self, part: Part) -> tuple[Path, ...]:
        """The lists, then the images in the order of their names."""
        folder = root() / FOLDER
        lists = tuple(folder / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"))
        images = sorted(folder.glob("train/*/images/*.JPEG" if part == "train" else "val/images/*.JPEG"))
        return (*lists, *images) if images and all(path.is_file() for path in lists) else ()

    def place(self, part: Part) -> str:
        """Where the unpacked folder belongs."""
        return f"{root() / FOLDER} (train/, val/, wnids.txt, words.txt)"

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,3,64,64], decoded as they are asked for, and labels in the order of wnids.txt."""
        wnids_file, words_file, annotations, *images = files
        wnids = wnids_file.read_text(encoding="utf-8").split()
        words = dict(_columns(words_file))
        owners = dict(_columns(annotations)) if part == "test" else {path.name: path.parts[-3] for path in images}
        strange = next((path for path in images if owners.get(path.name) not in wnids), None)
        if strange:
            raise DatasetError(f"{strange} has no class of {wnids_file}; unpack the published archive again")
        labels = np.array([wnids.index(owners[path.name]) for path in images], dtype=np.int64)
        folder = wnids_file.parent
        names = tuple(str(path.relative_to(folder)) for path in images)
        pixels = kept(DecodedFiles(folder, names, (64, 64), "colour", resize=False))
        return Published(pixels, labels, tuple(words.get(wnid, wnid).partition(",")[0] for wnid in wnids))


def _columns(path: Path) -> list[tuple[str, str]]:
    """The first two tab-separated columns of a list."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) > 1]
