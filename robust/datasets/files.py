"""Sets that lie in the data folder as they were published, and those that torchvision can put there."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from robust import torchvision
from robust.datasets.checksums import verified
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.published import Published, PublishedDataset, held
from robust.datasets.root import root
from robust.method import canonical_json


class FileDataset(PublishedDataset):
    """Base of the sets that a person puts into the data folder.

    Attributes:
        checksums: file name -> published MD5, SHA-1 or SHA-256; a file not named here is hashed and not compared.
        download_offer: what else can be done where files are missing or damaged.
    """

    checksums: ClassVar[Mapping[str, str]] = {}
    download_offer: ClassVar[str] = ""

    @abstractmethod
    def find(self, part: Part) -> tuple[Path, ...]:
        """The files of a part, in a fixed order; empty where one of them is missing."""

    @abstractmethod
    def place(self, part: Part) -> str:
        """Where the files of a part belong, said when they are missing."""

    @abstractmethod
    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """The whole part, from files that met their checksums; the digest is filled in afterwards."""

    def files(self, part: Part) -> tuple[Path, ...]:
        """The files of a part."""
        found = self.find(part)
        if not found:
            offer = f", or {self.download_offer}" if self.download_offer else ""
            raise DatasetError(f"{self.label()}: {part} files are missing; put them at {self.place(part)}{offer}")
        return found

    def whole(self, part: Part) -> Published:
        """The part, verified and read."""
        files = self.files(part)
        offer = f", or delete it and {self.download_offer}" if self.download_offer else ""
        digest = verified(files, self.checksums, f"replace it by the published file{offer}")
        key = (type(self), canonical_json(self.reading()), part, digest, files)
        return held(key, lambda: replace(self.read(part, files), digest=digest))


class DownloadableDataset(FileDataset):
    """Base of the sets that torchvision can download, where a person allows it."""

    download_offer: ClassVar[str] = "set dataset.download: true"

    download: bool = Field(default=False, description="fetch missing files by torchvision; else nothing is fetched")

    @abstractmethod
    def fetch(self, datasets: Any, folder: Path) -> None:
        """Let torchvision's module `datasets` download the set into a folder laid out like the data folder."""

    def files(self, part: Part) -> tuple[Path, ...]:
        """The files of a part, downloaded first where they are missing and `download` is set."""
        if self.download and not self.find(part):
            root().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root(), prefix=".download-") as temporary:
                self._download(Path(temporary), part)
                _move_into_place(Path(temporary), root())
        return super().files(part)

    def _download(self, folder: Path, part: Part) -> None:
        try:
            self.fetch(torchvision.load().datasets, folder)
        except (OSError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                f"{self.label()}: the download failed ({reason}); put the files by hand at {self.place(part)}"
            ) from error


def _move_into_place(source: Path, target: Path) -> None:
    """Whole files only: an interrupted download leaves nothing behind, and what is there already stays."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
