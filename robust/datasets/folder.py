"""folder: any folder of images, one subfolder a class, or one flat folder without labels."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from robust.datasets.checksums import file_digest
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.decoded import DecodedFiles, kept
from robust.datasets.images import SUFFIXES, Colour, decode
from robust.datasets.published import Published, PublishedDataset, held
from robust.datasets.root import root
from robust.randomness import generator

HASHED = 2**28  # bytes: the contents of a larger folder are not hashed, only names, sizes and modification times


class Folder(PublishedDataset):
    """folder: any folder of images; a class is a subfolder, a flat folder has no labels and can only be scored.

    A folder that holds nothing but `train/` and `test/` (or `val/`) has these two parts. In any other the images are
    one pool, all of which is the test part; `holdout` below 1 makes a fixed shuffle of them into a test part of that
    share and a training part. Images are found by an index and decoded by the batch, so that a folder of ImageNet's
    size works; up to 1 GiB of decoded pixels is kept. The split is called by the last part of `path`. Up to 256 MiB of
    files are fingerprinted by their contents, more by names, sizes and modification times.
    """

    name: ClassVar[str] = "folder"
    family: ClassVar[str] = "any"
    source: ClassVar[str] = "your own images"

    path: str = Field(min_length=1, description="the folder; relative to the data folder, else to the working folder")
    size: int | None = Field(
        default=None, ge=1, le=4096, description="pixels: scale the shorter side to it, crop a square at the centre"
    )
    colour: Colour = Field(default="colour", description="colour: three channels; grey: one")
    holdout: float = Field(
        default=1.0, gt=0, le=1, description="share of a folder without train/ and test/ that is the test part"
    )
    select: int = Field(default=200, ge=1, description="samples that choose the checkpoint")
    calibrate: int = Field(default=200, ge=1, description="samples that fit temperatures and thresholds")

    def label(self) -> str:
        """The last part of the path, in the letters that names may have."""
        return re.sub(r"[^a-z0-9]+", "-", Path(self.path).resolve().name.lower()).strip("-") or self.name

    def reading(self) -> dict[str, object]:
        """Colour and size: where the folder is, and how it is shared out, changes no image."""
        return {"colour": self.colour, "size": self.size}

    def files(self, part: Part) -> tuple[Path, ...]:
        """The folder that the part is read from."""
        top = self._top()
        parts = _parts(top)
        if not parts:
            return (top,)
        found = [top / name for name in (("train",) if part == "train" else ("test", "val")) if name in parts]
        if not found:
            raise DatasetError(f"{top} has no folder for the {part} part; add {part}/ with a subfolder for each class")
        return (found[0],)

    def whole(self, part: Part) -> Published:
        """An index of the images; none is decoded but the first, for its size."""
        (folder,) = self.files(part)
        if folder != self._top():
            return self._indexed(folder, self._classes(folder))
        pool = self._indexed(folder, ())
        if part == "train" and self.holdout == 1 and pool.classes:
            raise DatasetError(
                f"all images of {folder} are its test part; put train/ and test/ folders into it, or set "
                "dataset.holdout to the share that is the test part, for example 0.2"
            )
        if not pool.classes or self.holdout == 1:
            return pool
        order = generator(0, "parts", self.label()).permutation(len(pool.labels))
        test = max(1, round(self.holdout * len(order)))
        if test == len(order):
            raise DatasetError(f"{folder} has {len(order)} images: too few to hold {self.holdout} of them out")
        return pool.take(np.sort(order[:test] if part == "test" else order[test:]))

    def _top(self) -> Path:
        places = (root() / self.path, Path(self.path))
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            tried = " or ".join(dict.fromkeys(str(place) for place in places))
            raise DatasetError(f"there is no folder {tried}; correct dataset.path")
        return found

    def _classes(self, folder: Path) -> tuple[str, ...]:
        """The training part's classes number both parts."""
        train = self._top() / "train"
        return tuple(sorted(entry.name for entry in _visible(train if train.is_dir() else folder) if entry.is_dir()))

    def _indexed(self, folder: Path, classes: tuple[str, ...]) -> Published:
        index = scan(folder)
        key = (self.name, self.colour, self.size, str(folder.resolve()), index.digest, classes)
        return held(key, lambda: self._published(folder, index, classes))

    def _published(self, folder: Path, index: Index, classes: tuple[str, ...]) -> Published:
        owners = [name.partition("/")[0] if "/" in name else "" for name in index.names]
        classes = classes or tuple(sorted(set(owners) - {""}))
        number = {name: label for label, name in enumerate(classes)}
        if classes and not set(owners) <= set(number):
            strange = next(name for name, owner in zip(index.names, owners, strict=True) if owner not in number)
            raise DatasetError(f"{folder / strange} lies in none of the classes {', '.join(classes[:10])}; move it")
        labels = np.array([number.get(owner, -1) for owner in owners], dtype=np.int64)
        size = (self.size, self.size) if self.size else _size_of(folder / index.names[0], self.colour)
        pixels = kept(DecodedFiles(folder, index.names, size, self.colour, resize=self.size is not None))
        return Published(pixels, labels, classes, index.digest)


@dataclass(frozen=True)
class Index:
    """The image files below a folder: names relative to it, sorted, and a digest that changes with the files."""

    names: tuple[str, ...]
    digest: str


def scan(folder: Path) -> Index:
    """All images below a folder; hidden files and those of other kinds are passed over.

    Raises:
        DatasetError: if there is none, or a file cannot be reached.
    """
    try:
        found = sorted(_images(folder, "", depth=0))
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}; remove it or repair it") from error
    if not found:
        raise DatasetError(f"{folder} holds no images ({', '.join(SUFFIXES)}); correct dataset.path")
    by_content = sum(size for _, size, _ in found) <= HASHED
    seen = hashlib.sha256()
    for name, size, modified in found:
        mark = file_digest(folder / name) if by_content else f"{size}\x1f{modified}"
        seen.update(f"{name}\x1f{mark}\x1e".encode("utf-8", "surrogateescape"))
    return Index(tuple(name for name, _, _ in found), seen.hexdigest())


def _images(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, int, int]]:
    if depth > 8:
        raise OSError(0, "folders are nested more than eight deep (a link to itself?)", str(folder))
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _images(Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
        elif entry.name.lower().endswith(SUFFIXES):
            status = entry.stat()
            yield prefix + entry.name, status.st_size, status.st_mtime_ns


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _parts(top: Path) -> set[str]:
    """Which of train, test and val the folder holds, if it holds no other folder and no images."""
    names = {entry.name for entry in _visible(top) if entry.is_dir() or entry.name.lower().endswith(SUFFIXES)}
    return names if names <= {"train", "test", "val"} else set()


def _size_of(path: Path, colour: Colour) -> tuple[int, int]:
    image: Image.Image = decode(path, str(path), colour)
    return image.height, image.width
