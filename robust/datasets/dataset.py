"""The dataset contract: images held once as uint8, with ids that never change, and splits that cannot overlap."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust.method import Method, canonical_json
from robust.models.model import Inputs
from robust.randomness import generator

Split = Literal["train", "select", "calibrate", "test"]
SPLITS: tuple[Split, ...] = ("train", "select", "calibrate", "test")
Part = Literal["train", "test"]  # what publishers publish


class DatasetError(ValueError):
    """Data are missing, damaged or too few; the message names the file and the remedy."""


class Pixels(Protocol):
    """Where uint8 images [N,C,H,W] come from: an array, a memory map, or a reader that decodes files on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """The images of these rows (int64 [n]), uint8 [n,C,H,W]."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of other pixels, in an order of their own: shared, not copied."""

    source: Pixels
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.source.shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.source[self.rows[rows]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split: uint8 images, int64 labels and sample ids.

    Attributes:
        name, split: which data these are.
        pixels: uint8 [N,C,H,W], or a reader of such (see `Pixels`).
        labels: [N] int64, 0 <= label < len(classes); all -1 where the set has no labels, so that a loss refuses them.
        ids: [N] int64, unique; the position in the published order of the training or of the test part, so a sample
            has one id in every study.
        classes: class names, in label order; empty where the set has no labels.
        source_digest: digest of the published files these came from, and of how their pixels are read.

    Raises:
        DatasetError: if pixels, labels and ids do not belong together.
    """

    name: str
    split: str
    pixels: Pixels = field(repr=False)
    labels: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    source_digest: str

    def __post_init__(self) -> None:
        counts = {self.pixels.shape[0], len(self.labels), len(self.ids)}
        if len(counts) > 1 or not counts.pop():
            raise DatasetError(
                f"{self.name}: {self.pixels.shape[0]} images, {len(self.labels)} labels and {len(self.ids)} ids; "
                "a split needs at least one image, and one label and one id for each"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if (low, high) != (-1, -1) and not 0 <= low <= high < len(self.classes):
            raise DatasetError(f"{self.name}: labels run from {low} to {high}, for {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def labelled(self) -> bool:
        """Whether the samples have labels; a set without can only be scored, as out-of-distribution data are."""
        return bool(self.labels[0] >= 0)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the split: source files, and which of their samples in which order."""
        parts = [self.name, self.source_digest, *self.classes]
        body = "\x1f".join(parts).encode() + self.ids.tobytes() + self.labels.tobytes()
        return hashlib.sha256(body).hexdigest()

    def batch(self, rows: Sequence[int] | np.ndarray | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Images [n,C,H,W] float32 in [0,1], labels [n] and ids [n] of some rows: the only place that makes floats."""
        index = _positions(rows, len(self))
        images = torch.from_numpy(np.ascontiguousarray(self.pixels[index])).float().div_(255)
        return images, torch.from_numpy(self.labels[index]), torch.from_numpy(self.ids[index])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def subset(self, rows: Sequence[int] | np.ndarray | slice) -> Dataset:
        """Some rows as a dataset of its own; pixels are shared, not copied.

        Raises:
            DatasetError: if no row is left.
        """
        index = _positions(rows, len(self))
        return replace(self, pixels=Rows(self.pixels, index), labels=self.labels[index], ids=self.ids[index])

    def inputs(self) -> Inputs:
        """Shape, class count and the mean and standard deviation of each channel (over at most 10,000 samples)."""
        total, squares = torch.zeros(2, self.shape[0], dtype=torch.float64)
        count = 0
        for images, _, _ in self.subset(slice(0, 10_000)).batches(1000):
            pixels = images.double().transpose(0, 1).flatten(1)
            total, squares, count = total + pixels.sum(1), squares + (pixels**2).sum(1), count + pixels.shape[1]
        mean = total / count
        std = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
        # four decimals: what papers print, and stable against summation order
        return Inputs(
            shape=self.shape,
            num_classes=len(self.classes),
            mean=tuple(round(float(m), 4) for m in mean),
            std=tuple(round(float(s), 4) for s in std),
        )


class DatasetSpec(Method):
    """Base of all datasets: which published set, and how many samples each split takes.

    train, select and calibrate are disjoint parts of the published training set, drawn by one fixed shuffle; test
    comes from the published test set, in the order of another fixed shuffle, so that the first n are a fair sample.
    None takes what is left (train) or all (test).
    """

    kind: ClassVar[str] = "dataset"

    train: int | None = Field(default=None, ge=1, description="training samples; all that are left when empty")
    select: int = Field(default=1000, ge=1, description="samples that choose the checkpoint")
    calibrate: int = Field(default=1000, ge=1, description="samples that fit temperatures and thresholds")
    test: int | None = Field(default=None, ge=1, description="test samples; all when empty")

    @abstractmethod
    def load(self, split: Split) -> Dataset:
        """The split.

        Raises:
            DatasetError: if a file is missing or damaged; the message says what to do.
        """

    @abstractmethod
    def files(self, part: Part) -> tuple[Path, ...]:
        """The files that this part is read from, in a fixed order; none for an embedded or synthetic set.

        Raises:
            DatasetError: if they are not there; the message says where they should be.
        """

    def label(self) -> str:
        """What the loaded splits are called."""
        return self.name

    def digest(self) -> str:
        """As every method's, without `download`: where the files came from does not change what is in them."""
        settings = {key: value for key, value in self.settings().items() if key != "download"}
        return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:12]


def split_rows(count: int, spec: DatasetSpec, purpose: str) -> dict[str, np.ndarray]:
    """Disjoint rows of a published training set of `count` samples for select, calibrate and train, in that order.

    One shuffle per dataset, keyed by its name alone: a smaller study takes a prefix of a larger one's rows.

    Raises:
        DatasetError: if the set is too small for the sizes asked for.
    """
    order = generator(0, "split", purpose).permutation(count)
    reserved = spec.select + spec.calibrate
    wanted = reserved + (spec.train or 1)
    if wanted > count:
        raise DatasetError(
            f"{purpose} has {count} training samples, but train + select + calibrate ask for {wanted}; "
            "lower dataset.train, dataset.select or dataset.calibrate"
        )
    end = count if spec.train is None else reserved + spec.train
    return {"select": order[: spec.select], "calibrate": order[spec.select : reserved], "train": order[reserved:end]}


def _positions(rows: Sequence[int] | np.ndarray | slice, count: int) -> np.ndarray:
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    index = np.asarray(rows)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64, copy=False)
