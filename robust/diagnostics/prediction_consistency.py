"""Prediction consistency: how often a network repeats itself when its input is a little noisy, each time anew."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.detection.metrics import auroc
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.randomness import Randomness
from robust.statistics import wilson

BATCH = 250


class PredictionConsistency(Diagnostic):
    """Share of repeated noisy passes that agree with the most frequent prediction: uncertainty without probabilities.

    c(x) = max_k 1/T sum_t [argmax f(x + s z_t) = k], z_t ~ N(0, I); a random defence adds its own draws. A prediction
    that does not repeat itself is not to be believed: whether c tells right from wrong is measured beside what the mean
    of the largest softmax value tells, as AUROC (wrong predictions against right ones; the prediction is the mode).

    Rows: mean `consistency` of all, right and wrong predictions, `consistent-share` (c = 1), `consistency-auroc` and
    `confidence-auroc` (none where all predictions are right, or all wrong). Costs `passes` forward passes an image.
    """

    name = "prediction-consistency"
    family = "uncertainty"
    source = "repeated passes"

    passes: int = Field(default=20, ge=2, description="noisy passes T")
    sigma: float = Field(default=0.1, ge=0, description="deviation of the input's noise, in [0,1] image units")
    samples: int = Field(default=500, ge=1, description="test samples")

    def measure(self, subject: Subject) -> Measured:
        """Rows, and accuracy by consistency as a figure."""
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        with subject.classifier.frozen(), torch.no_grad():
            parts = [
                self._repeated(subject.classifier, images[rows], Randomness.of(subject.seed, ids[rows], self.name))
                for rows in torch.arange(len(labels)).split(BATCH)
            ]
        consistency, predicted, confidence = (np.concatenate(part) for part in zip(*parts))
        right = predicted == labels.numpy()
        rows: list[Row] = [{"quantity": "consistency", "value": float(consistency.mean()), "n": len(right)}]
        for name, group in (("right", right), ("wrong", ~right)):
            value = float(consistency[group].mean()) if group.any() else None
            rows.append({"quantity": "consistency", "of": name, "value": value, "n": int(group.sum())})
        rows.append({"quantity": "consistent-share", "value": float((consistency == 1).mean()), "n": len(right)})
        for name, score in (("consistency-auroc", consistency), ("confidence-auroc", confidence)):
            told = auroc(score[right], score[~right]) if right.any() and not right.all() else None
            rows.append({"quantity": name, "value": None if told is None else float(told), "n": len(right)})
        return Measured(rows, [_figure(consistency, right)])

    def _repeated(
        self, classifier: Classifier, images: Tensor, rng: Randomness
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Consistency, prediction (the mode) and mean confidence of each image, [n] each."""
        x = images.to(classifier.device, classifier.dtype)
        counts, confidence = None, x.new_zeros(len(x)).double()
        for repeat in range(self.passes):
            noise = rng.fork("repeat", repeat).normal(x.shape[1:], like=x) if self.sigma else torch.zeros_like(x)
            logits = classifier(x + self.sigma * noise)
            votes = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            counts = votes if counts is None else counts + votes
            confidence = confidence + logits.double().softmax(1).amax(1) / self.passes
        assert counts is not None  # noqa: S101 - at least two passes
        most, mode = counts.max(1)
        return (most.double() / self.passes).cpu().numpy(), mode.cpu().numpy(), confidence.cpu().numpy()


def _figure(consistency: np.ndarray, right: np.ndarray) -> Row:
    """Accuracy of the images of each consistency, with intervals."""
    levels = np.unique(consistency)
    groups = [right[consistency == level] for level in levels]
    low, high = wilson([int(group.sum()) for group in groups], [len(group) for group in groups])
    series = {
        "label": "accuracy",
        "x": levels.tolist(),
        "y": [float(group.mean()) for group in groups],
        "low": np.atleast_1d(low).tolist(),
        "high": np.atleast_1d(high).tolist(),
        "mark": "points",
    }
    return {"id": "accuracy", "title": "Accuracy by consistency of the prediction", "x_label": "consistency",
            "y_label": "accuracy", "y_range": [0, 1], "series": [series]}  # fmt: skip
