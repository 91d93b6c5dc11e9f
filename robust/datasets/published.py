"""A set with a training and a test part: cut the four splits, and hold each part once.

Parts are held for as long as a split of them is in use, so the splits of one set, and the tasks that run side by side
in one process, share the pixels.
"""

from __future__ import annotations

import hashlib
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from robust.datasets.dataset import SPLITS, Dataset, DatasetError, DatasetSpec, Part, Pixels, Rows, Split, split_rows
from robust.method import canonical_json
from robust.randomness import generator


@dataclass(frozen=True, eq=False)
class Published:
    """One part of a set, whole and in published order; itself a source of pixels.

    Attributes:
        pixels: uint8 [N,C,H,W].
        labels: [N] int64, all -1 where there are none.
        classes: class names, in label order.
        digest: of the files that it was read from.
        ids: positions in the published order, [N] int64; 0..N-1 when left out.
    """

    pixels: Pixels
    labels: np.ndarray
    classes: tuple[str, ...]
    digest: str = ""
    ids: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self.pixels.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]

    def take(self, rows: np.ndarray) -> Published:
        """Some rows; they keep their ids, and share the pixels."""
        ids = rows if self.ids is None else self.ids[rows]
        return Published(Rows(self, rows), self.labels[rows], self.classes, self.digest, ids)


class PublishedDataset(DatasetSpec):
    """Base of all sets that come as a training and a test part, or are cut into these."""

    @abstractmethod
    def whole(self, part: Part) -> Published:
        """The part, whole.

        Raises:
            DatasetError: if a file is missing or damaged.
        """

    def load(self, split: Split) -> Dataset:
        """The split; see `DatasetSpec`."""
        if split not in SPLITS:
            raise DatasetError(f"{self.label()} has no split {split!r}; the splits are {', '.join(SPLITS)}")
        part: Part = "test" if split == "test" else "train"
        whole = self.whole(part)
        if part == "train" and whole.labels[0] < 0:
            raise DatasetError(f"{self.label()} has no labels, so nothing can be trained or fitted on it")
        chosen = whole.take(self._rows(split, len(whole.labels)))
        return Dataset(
            name=self.label(), split=split, pixels=chosen, labels=chosen.labels, ids=np.asarray(chosen.ids),
            classes=chosen.classes, source_digest=self._source_digest(chosen.digest, part),
        )  # fmt: skip

    def reading(self) -> dict[str, object]:
        """The fields that change what is read: all but the sizes of the splits and where the files come from."""
        return self.model_dump(mode="json", exclude={"train", "select", "calibrate", "test", "download"})

    def _source_digest(self, digest: str, part: Part) -> str:
        return hashlib.sha256(canonical_json([digest, part, self.reading()]).encode()).hexdigest()

    def _rows(self, split: Split, count: int) -> np.ndarray:
        if split != "test":
            return split_rows(count, self, self.label())[split]
        if self.test is not None and self.test > count:
            raise DatasetError(f"{self.label()} has {count} test samples, but dataset.test asks for {self.test}")
        return generator(0, "split", self.label(), "test").permutation(count)[: self.test]


def held(key: tuple[object, ...], read: Callable[[], Published]) -> Published:
    """What `read` returns, read once for a key as long as anybody uses it; threads wait for one another's reading."""
    with _READING:
        whole = _HELD.get(key)
        if whole is None:
            whole = _HELD[key] = read()
    return whole


_HELD: WeakValueDictionary[tuple[object, ...], Published] = WeakValueDictionary()
_READING = threading.Lock()
