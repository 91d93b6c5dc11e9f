"""Sets that lie in the data folder as they were published, and those that torchvision can put there."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from robust import torchvision
from robust.datasets.dataset import DatasetError, Part
from robust.datasets.published import PublishedDataset
from robust.datasets.root import root


class FileDataset(PublishedDataset):
    """Base of the sets that a person puts into the data folder."""

    @abstractmethod
    def find(self, part: Part) -> tuple[Path, ...]:
        """The files of a part, in a fixed order; empty where one of them is missing."""

    @abstractmethod
    def place(self, part: Part) -> str:
        """Where the files of a part belong, said when they are missing."""

    def files(self, part: Part) -> tuple[Path, ...]:
        """The files of a part."""
        found = self.find(part)
        if not found:
            raise DatasetError(
                f"{self.label()}: its {part} files are missing; expected {self.place(part)}; {self.remedy}"
            )
        return found


class DownloadableDataset(FileDataset):
    """Base of the sets that torchvision can download, where a person allows it."""

    remedy: ClassVar[str] = "put the published file there, or remove what is there and set dataset.download: true"

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
            raise DatasetError(
                f"{self.label()}: the download failed ({error}); put the files by hand at {self.place(part)}"
            ) from error


def _move_into_place(source: Path, target: Path) -> None:
    """Whole files only: an interrupted download leaves nothing behind, and what is there already stays."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
