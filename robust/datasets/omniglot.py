"""Omniglot: handwritten characters of fifty alphabets; near out-of-distribution data for digits."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from robust.datasets.dataset import DatasetError, Part
from robust.datasets.files import FileDataset
from robust.datasets.images import decode, fit, to_array
from robust.datasets.published import Published
from robust.datasets.root import root

LARGEST = 2**20  # bytes of one drawing; the published ones have some 300


class Omniglot(FileDataset):
    """Omniglot: characters of many alphabets drawn by twenty people each, white on black as MNIST's digits.

    Source: Lake, Salakhutdinov, Tenenbaum, Human-level concept learning (Science 2015). Read from the published zip
    archive without unpacking it. The drawings are black on white, 105 x 105; here they are inverted, since a detector
    that only sees the other background says nothing, and resized (bilinear, antialiased) to `size`. A class is a
    character, named "alphabet/character". All drawings are the test part.
    """

    name: ClassVar[str] = "omniglot"
    family: ClassVar[str] = "grey 105x105"
    source: ClassVar[str] = "Lake et al. 2015"

    checksums: ClassVar[Mapping[str, str]] = {
        "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
        "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
    }

    archive: Literal[
        "images_background_small1", "images_background_small2", "images_background", "images_evaluation"
    ] = Field(default="images_background_small1", description="which published archive: small ones hold five alphabets")
    size: int = Field(default=28, ge=8, le=105, description="pixels: height and width after resizing")

    def find(self, part: Part) -> tuple[Path, ...]:
        """The archive; there is no training part."""
        paths = (root() / folder / f"{self.archive}.zip" for folder in ("omniglot", "omniglot-py"))
        return next(((path,) for path in paths if part == "test" and path.is_file()), ())

    def place(self, part: Part) -> str:
        """Where the archive belongs."""
        if part == "train":
            raise DatasetError(
                "omniglot has no training part: it serves as out-of-distribution data; load its test part"
            )
        return str(root() / "omniglot" / f"{self.archive}.zip")

    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """Images [N,1,size,size], one class for each character, in the order of their names."""
        (path,) = files
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(_checked(path, info) for info in archive.infolist() if info.filename.endswith(".png"))
                images = [self._image(archive.read(name), f"{path}:{name}") for name in names]
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
        if not images:
            raise DatasetError(f"{path} holds no drawings (.png); replace it by the published file")
        owners = ["/".join(PurePosixPath(name).parts[-3:-1]) for name in names]
        classes = sorted(set(owners))
        number = {name: label for label, name in enumerate(classes)}
        return Published(np.stack(images), np.array([number[owner] for owner in owners]), tuple(classes))

    def _image(self, content: bytes, name: str) -> np.ndarray:
        return 255 - to_array(fit(decode(io.BytesIO(content), name, "grey"), self.size, self.size))


def _checked(path: Path, info: zipfile.ZipInfo) -> str:
    """The name of a member, if it is one that an honest archive holds: nothing here is ever written to a disk."""
    parts = PurePosixPath(info.filename).parts
    is_link = info.external_attr >> 28 == 0xA
    if ".." in parts or PurePosixPath(info.filename).is_absolute() or is_link or info.file_size > LARGEST:
        raise DatasetError(
            f"{path}: the member {info.filename!r} leads outside the archive, is a link, or is larger than {LARGEST} "
            "bytes; replace the archive by the published one"
        )
    return info.filename
