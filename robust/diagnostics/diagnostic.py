"""The diagnostic contract: a measurement of a trained network, returned as rows and figures that go into the report."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.method import Method

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a diagnostic may look at.

    Attributes:
        classifier: the network with its best weights (and its defence, where it has one), eval mode, weights without
            gradients.
        train: the samples that the network was fitted to, with the labels it was given.
        test: the test split.
        seed: keys every draw; `Randomness.of(seed, ids, ...)` gives per-sample ones.
        history: the training's rows, one an epoch.
        snapshots: epoch -> the network as it was after that epoch; the epochs are those of `training.snapshots`.
    """

    classifier: Classifier
    train: Dataset
    test: Dataset
    seed: int = 0
    history: list[Row] = field(default_factory=list)
    snapshots: Mapping[int, Callable[[], Classifier]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a diagnostic found.

    Attributes:
        rows: plain data, each with at least `quantity` (text) and `value` (number, finite or None), and where it
            applies `epoch`, `at` (a number that the value depends on: a size, a step count), `of` (text: which
            series), `n`, `low` and `high` (95 % interval).
        figures: `{id, title, x_label, y_label, series[{label, x[], y[], low[]?, high[]?, mark?}]}` with optional
            `caption, x_log, y_log, y_range`; mark is line (default), steps, points, bars or histogram. Ids are unique
            within the diagnostic; the report puts the network before them.
        pictures: `{id, title, caption, images}` with images a uint8 array [R,C,H,W] and `columns`: a grid of images.
    """

    rows: list[Row] = field(default_factory=list)
    figures: list[Row] = field(default_factory=list)
    pictures: list[Row] = field(default_factory=list)


class Diagnostic(Method):
    """Base of all diagnostics."""

    kind: ClassVar[str] = "diagnostic"

    @abstractmethod
    def measure(self, subject: Subject) -> Measured:
        """The measurement; the same subject and seed give the same rows."""
