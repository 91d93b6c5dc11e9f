"""Snapshot ensemble: the mean prediction of one training's weights at several epochs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PrivateAttr

from robust.classifier import Classifier
from robust.defences.averaging import Averaged, unbound
from robust.defences.defence import Defence, Material


class SnapshotEnsemble(Defence):
    """Averages the probabilities of the snapshots that the training kept.

    p(y|x) = 1/M sum_m softmax(f_m(x))_y over the weights after the epochs of `training.snapshots` (Huang et al. 2017,
    arXiv 1704.00109, section 3.2). For the paper's schedule set `training.cycles` to M with `schedule: cosine`, and
    `training.snapshots` to the last epoch of each cycle. M forward and backward passes for one.
    """

    name = "snapshot-ensemble"
    family = "ensemble"
    source = "arXiv 1704.00109"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)

    _members: list[Classifier] | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, material: Material) -> SnapshotEnsemble:
        """With the snapshots.

        Raises:
            ValueError: if there are fewer than two.
        """
        if len(material.snapshots) < 2:
            raise ValueError(
                f"{self.name} averages snapshots, there are {len(material.snapshots)}: set training.snapshots"
            )
        bound = self.model_copy()
        bound._members = [load() for _, load in sorted(material.snapshots.items())]
        return bound

    def wrap(self, classifier: Classifier) -> Classifier:
        """The mean of the snapshots."""
        if self._members is None:
            raise unbound(self.name, "snapshots")
        return Averaged(classifier, self._members)
