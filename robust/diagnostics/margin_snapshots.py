"""Does a larger margin mean a larger distance to the nearest adversarial image? One training, snapshot by snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.homogeneity import degree
from robust.diagnostics.lipschitz import local_lipschitz
from robust.diagnostics.stages import (
    batch_of,
    finite,
    history_row,
    l2_distances,
    line,
    rank_correlation,
    stages,
    survival,
)
from robust.log_losses import LossFunction
from robust.losses import margin
from robust.margins import margins_of
from robust.randomness import Randomness

FITTED = ("log10_loss", "margin_product", "margin_norm", "smoothed_margin", "train_accuracy")


@dataclass(frozen=True)
class _Stage:
    """One snapshot: its rows' values, and the distances [n] on both splits."""

    epoch: int
    values: dict[str, float]
    train: Tensor
    test: Tensor


class MarginSnapshots(Diagnostic):
    """Snapshots of one training: loss, margins, accuracy, and the l2 robustness curve of each (M-2, M-3, M-4).

    After Lyu & Li 2020, arXiv 1906.05890, table and figures of the appendix on robustness, with another attack: the
    smallest perturbation comes from DDN on the margin loss in place of Carlini-Wagner, because cross-entropy attacks
    fall silent at these margins. Misclassified images have distance 0, failed attacks infinity.

    Rows for each snapshot: log10 loss, margins, accuracies, test loss, median and smallest attacked distance on train
    and test, the median gap over local Lipschitz estimate, that estimate itself, epochs accepted so far. Over the
    snapshots: Spearman's correlation of the product margin with each distance. Figures: m3-train, m3-test (share of
    images with a distance of at least x), m4-scatter (distance against margin). The points of several arms are joined
    by whoever holds the rows of both. Cost: 2 `samples` x `steps` passes a snapshot, forward and backward.
    """

    name: ClassVar[str] = "margin-snapshots"
    family: ClassVar[str] = "margins"
    source: ClassVar[str] = "arXiv 1906.05890"

    samples: int = Field(default=200, ge=2, description="images attacked, of train and of test each")
    steps: int = Field(default=100, ge=1, description="DDN iterations")
    loss_function: LossFunction = Field(default="cross-entropy", description="the one trained with")

    def measure(self, subject: Subject) -> Measured:
        """Rows and figures."""
        order = degree(subject.classifier, subject.train.batch(slice(0, 8))[0])
        found = [self._stage(subject, epoch, network(), order) for epoch, network in stages(subject)]
        rows: list[Row] = [
            {"quantity": name, "value": finite(value), "epoch": stage.epoch}
            for stage in found
            for name, value in stage.values.items()
        ]
        margins = [stage.values["margin_product"] for stage in found]
        measured = [name for name in found[0].values if "distance" in name or "lipschitz" in name]
        rows += [
            {"quantity": "spearman of margin_product", "of": name, "n": len(found),
             "value": rank_correlation(margins, [stage.values[name] for stage in found])}
            for name in measured
        ]  # fmt: skip
        return Measured(rows, self._figures(found, margins))

    def _stage(self, subject: Subject, epoch: int, classifier: Classifier, order: int | None) -> _Stage:
        fitted = margins_of(classifier, subject.train, order, self.loss_function).row()
        unseen = margins_of(classifier, subject.test, order, self.loss_function)
        values = {name: fitted[name] for name in FITTED if name in fitted}
        values |= {"test_accuracy": unseen.accuracy, "log10_test_loss": unseen.row()["log10_loss"]}
        accepted = history_row(subject, epoch).get("accepted")
        values |= {} if accepted is None else {"accepted": accepted}
        distances = {}
        with classifier.frozen():
            for split, dataset in (("train", subject.train), ("test", subject.test)):
                distances[split], own = self._robustness(classifier, dataset, split, subject.seed)
                values |= own
        return _Stage(epoch, values, distances["train"], distances["test"])

    def _robustness(
        self, classifier: Classifier, dataset: Dataset, split: str, seed: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Attacked distances [n] of one split, and their summary."""
        images, labels, ids = batch_of(classifier, dataset, self.samples)
        distances = l2_distances(classifier, images, labels, Randomness.of(seed, ids, self.name), self.steps)
        right = distances > 0
        steepest = local_lipschitz(classifier, images, labels, Randomness.of(seed, ids, self.name)).cpu()
        with torch.no_grad():
            gaps = -margin(classifier(images), labels).double().cpu()
        return distances, {
            f"median_{split}_distance": float(distances.median()),
            f"smallest_{split}_distance": float(distances[right].min()) if right.any() else 0.0,
            f"local_lipschitz_{split}": float(steepest.median()),
            f"gap_over_lipschitz_{split}": float((gaps / steepest.clamp_min(1e-300)).clamp_min(0.0).median()),
        }

    @staticmethod
    def _figures(found: list[_Stage], margins: list[float]) -> list[Row]:
        size, share = "l2 size of the perturbation", "share of images with a distance of at least x"
        curves = [
            {"id": f"m3-{split}", "paper": "M-3", "title": f"l2 robustness on {split}", "x_label": size,
             "y_label": share,
             "y_range": [0, 1], "series": [survival(f"epoch {s.epoch}", getattr(s, split)) for s in found]}
            for split in ("train", "test")
        ]  # fmt: skip
        names = [name for name in found[0].values if name.endswith("distance")]
        points = [
            line(name.replace("_", " "), margins, [s.values[name] for s in found], mark="points") for name in names
        ]
        scatter = {"id": "m4-scatter", "paper": "M-4", "title": "Margin against robustness",
                   "x_label": "margin, product form",
                   "y_label": "l2 distance", "x_log": True, "series": points}  # fmt: skip
        return [*curves, scatter]
