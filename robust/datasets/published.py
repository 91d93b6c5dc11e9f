"""A published set with a training and a test part: find its files, verify them, read a part once, cut the splits.

A dataset of this kind says which files it needs (`files`) and how a part is read (`read`). Parts are held once in a
process, for as long as a split of them is in use: the splits of one set, and the tasks of one run, share the pixels.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np

from robust.datasets.checksums import verified
from robust.datasets.dataset import SPLITS, Dataset, DatasetError, DatasetSpec, Part, Pixels, Rows, Split, split_rows
from robust.randomness import generator


@dataclass(frozen=True, eq=False)
class Published:
    """The training or the test part of a set, whole and in published order; itself a source of pixels.

    Attributes:
        pixels: uint8 [N,C,H,W].
        labels: [N] int64, all -1 where there are none.
        classes: class names, in label order.
        source_digest: filled in by `PublishedDataset`.
        ids: positions in the published order, [N] int64; 0..N-1 when empty.
    """

    pixels: Pixels
    labels: np.ndarray
    classes: tuple[str, ...]
    source_digest: str = ""
    ids: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self.pixels.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]

    def take(self, rows: np.ndarray) -> Published:
        """Some rows; they keep their ids."""
        ids = np.arange(len(self.labels)) if self.ids is None else self.ids
        return replace(self, pixels=Rows(self.pixels, rows), labels=self.labels[rows], ids=ids[rows])


class PublishedDataset(DatasetSpec):
    """Base of all sets that come as a training and a test part.

    Attributes:
        checksums: file name -> published MD5, SHA-1 or SHA-256; a file not named here is hashed and not compared.
        remedy: what to do about a missing or damaged file, said at the end of the message.
    """

    checksums: ClassVar[Mapping[str, str]] = {}
    remedy: ClassVar[str] = "put the published file there"

    @abstractmethod
    def read(self, part: Part, files: tuple[Path, ...]) -> Published:
        """The whole part, from the files that `files` found and that met their checksums."""

    def load(self, split: Split) -> Dataset:
        """The split; see `DatasetSpec`."""
        if split not in SPLITS:
            raise DatasetError(f"{self.label()} has no split {split!r}; the splits are {', '.join(SPLITS)}")
        part: Part = "test" if split == "test" else "train"
        whole = self._held(part)
        if part == "train" and whole.labels[0] < 0:
            raise DatasetError(f"{self.label()} has no labels, so nothing can be trained or fitted on it")
        rows = self._rows(split, len(whole.labels))
        ids = rows if whole.ids is None else whole.ids[rows]
        return Dataset(
            self.label(), split, Rows(whole, rows), whole.labels[rows], ids, whole.classes, whole.source_digest
        )

    def _rows(self, split: Split, count: int) -> np.ndarray:
        if split != "test":
            return split_rows(count, self, self.label())[split]
        if self.test is not None and self.test > count:
            raise DatasetError(f"{self.label()} has {count} test samples, but dataset.test asks for {self.test}")
        return generator(0, "split", self.label(), "test").permutation(count)[: self.test]

    def _held(self, part: Part) -> Published:
        files = self.files(part)
        digest = verified(files, self.checksums, self.remedy)
        options = self.model_dump(mode="json", exclude={"train", "select", "calibrate", "test", "download"})
        key = (type(self), str(sorted(options.items())), part, digest, files)
        with _READING:  # two threads that ask for one part wait for one reading of it
            whole = _HELD.get(key)
            if whole is None:
                whole = self.read(part, files)
                whole = replace(whole, source_digest=whole.source_digest or f"{digest}-{part}")
                _HELD[key] = whole
        return whole


_HELD: WeakValueDictionary[tuple[object, ...], Published] = WeakValueDictionary()
_READING = threading.Lock()
