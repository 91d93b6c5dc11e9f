"""Is the margin over the Lipschitz constant a useful bound on robustness? It is set against attacked distances."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.lipschitz import certified_distance, layer_constants, local_lipschitz, product_bound
from robust.diagnostics.stages import batch_of, finite, l2_distances, rank_correlation, stages
from robust.losses import margin
from robust.randomness import Randomness


class MarginLipschitzBound(Diagnostic):
    """The lower bound gap / L on the distance to a misclassified image, beside the distance that an attack finds.

    A larger margin helps only as far as the Lipschitz constant does not grow with it (the objection of the review of
    Lyu & Li 2020, question Q10). Two quotients: the certified one, gap over the product of the layers' spectral norms
    (Tsuzuku et al. 2018, arXiv 1802.04034, with the rows of a linear last layer taken exactly), which no attack can
    undercut; and the estimate, gap over the largest gradient norm seen around the image (as Weng et al. 2018, arXiv
    1801.10578), which an attack may undercut. Distances are DDN's on the margin loss, on test images.

    Rows for each snapshot: medians of both quotients, of the attacked distance and of the gap; median ratio of each
    quotient to the distance; Spearman's correlation with it; how often the attack undercuts it, which for the certified
    one must be 0. Figure: distance against quotient, for the last snapshot.
    """

    name: ClassVar[str] = "margin-lipschitz-bound"
    family: ClassVar[str] = "lipschitz"
    source: ClassVar[str] = "arXiv 1802.04034"

    samples: int = Field(default=200, ge=2, description="test images")
    steps: int = Field(default=100, ge=1, description="DDN iterations")
    radius: float = Field(default=0.5, ge=0, description="l2 radius in which gradients are sampled, [0,1] image units")
    draws: int = Field(default=8, ge=0, description="random points in it")

    def measure(self, subject: Subject) -> Measured:
        """Rows and the figure distance-against-bound."""
        rows: list[Row] = []
        figures: list[Row] = []
        for epoch, network in stages(subject):
            with network().frozen() as classifier:
                images, labels, ids = batch_of(classifier, subject.test, self.samples)
                rng = Randomness.of(subject.seed, ids, self.name)
                attacked = l2_distances(classifier, images, labels, rng, self.steps)
                quotients = self._quotients(classifier, images, labels, rng)
                with torch.no_grad():
                    gaps = -margin(classifier(images), labels).double().cpu()
            rows += self._rows(quotients, attacked, gaps, epoch)
            figures = [_figure(quotients, attacked)]
        return Measured(rows, figures)

    def _quotients(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> dict[str, Tensor]:
        """Lower bound and estimate of the distance of each image, [N] on the CPU."""
        steepest = local_lipschitz(classifier, images, labels, rng, self.radius, self.draws)
        with torch.no_grad():
            gaps = -margin(classifier(images), labels).double()
        found = {"estimate": (gaps / steepest.clamp_min(1e-300)).clamp_min(0.0).cpu()}
        bound = product_bound(layer_constants(classifier, images[0]))
        if bound is not None:
            found["certified"] = certified_distance(classifier, images, labels, bound).cpu()
        return found

    @staticmethod
    def _rows(quotients: dict[str, Tensor], attacked: Tensor, gaps: Tensor, epoch: int) -> list[Row]:
        right = attacked > 0
        kept = right & attacked.isfinite()
        rows: list[Row] = [
            {"quantity": "attacked distance, median", "value": finite(float(attacked.median())), "n": len(attacked)},
            {"quantity": "gap, median", "value": finite(float(gaps.median())), "n": len(gaps)},
        ]
        for name, values in quotients.items():
            ratio = values[kept] / attacked[kept]
            n = int(kept.sum())
            rows += [
                {"quantity": "gap / L, median", "of": name, "value": finite(float(values.median())), "n": len(values)},
                {"quantity": "gap / L over distance, median", "of": name, "n": n,
                 "value": finite(float(ratio.median())) if n else None},
                {"quantity": "spearman with distance", "of": name, "n": n,
                 "value": rank_correlation(values[kept].tolist(), attacked[kept].tolist())},
                {"quantity": "share undercut by the attack", "of": name, "n": n,
                 "value": finite(float((ratio > 1 + 1e-6).double().mean())) if n else None},
            ]  # fmt: skip
        return [{**row, "epoch": epoch} for row in rows]


def _figure(quotients: dict[str, Tensor], attacked: Tensor) -> Row:
    kept = (attacked > 0) & attacked.isfinite()
    series = [
        {"label": name, "x": values[kept].tolist(), "y": attacked[kept].tolist(), "mark": "points"}
        for name, values in quotients.items()
    ]
    return {"id": "distance-against-bound", "title": "Attacked distance against gap / L", "x_label": "gap / L",
            "y_label": "l2 distance found", "x_log": True, "series": series,
            "caption": "No certified point may lie below the diagonal."}  # fmt: skip
