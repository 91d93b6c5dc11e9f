"""A grid of images that an energy model makes of noise: one column a class, by Langevin chains begun afresh."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.defences.jem_refinement import Refined
from robust.diagnostics.diagnostic import Diagnostic, Measured, Subject
from robust.energy import Langevin, log_density
from robust.randomness import Randomness


class SamplesGrid(Diagnostic):
    """Samples of p(x, y) for each class, from uniform noise by `steps` Langevin steps on f(x)_y.

    The samples figure of the JEM paper (Grathwohl et al. 2020, arXiv 1912.03263, figure 2). Chains of a replay buffer
    are older and look better; these show what the network alone can make. `climb: all` walks on log p(x) for all
    columns. A network that was not trained as a density gives patterns that no one would call a digit.

    Rows: share of samples that the network itself assigns to their column's class (climb class), mean f of the samples
    and of as many test images (nats), and the share of pixels that had left [0,1] before they were clipped.
    Costs `steps` forward and backward passes a sample.
    """

    name = "samples-grid"
    family = "energy"
    source = "arXiv 1912.03263"

    per_class: int = Field(default=10, ge=1, le=100, description="samples of each class: rows of the grid")
    classes: int = Field(default=10, ge=1, le=100, description="columns: the first classes of the set")
    steps: int = Field(default=200, ge=1, description="Langevin steps; 20 are too few for a chain that begins in noise")
    step_size: float = Field(default=1.0, gt=0, description="alpha of a step, for [-1,1] pixels")
    sigma: float = Field(default=0.01, ge=0, description="deviation of a step's noise, for [-1,1] pixels")
    climb: Literal["class", "all"] = Field(default="class", description="f(x)_y of the column's class, or log p(x)")

    def measure(self, subject: Subject) -> Measured:
        """Rows and one picture."""
        classifier = subject.classifier.inner if isinstance(subject.classifier, Refined) else subject.classifier
        columns = min(self.classes, len(subject.test.classes))
        labels = torch.arange(columns, device=classifier.device).repeat(self.per_class)
        samples = self._sample(classifier, labels, subject)
        with classifier.frozen(), torch.no_grad():
            logits = classifier(samples)
            images = subject.test.batch(slice(0, len(labels)))[0].to(samples)
            data = log_density(classifier(images)).double().mean()
        agreeing = (logits.argmax(1) == labels).double().mean()
        outside = ((samples < 0) | (samples > 1)).double().mean()
        found = {"sample-class-agreement": agreeing} if self.climb == "class" else {}
        found |= {"f-fresh-samples": log_density(logits).double().mean(), "f-test": data, "pixels-outside-box": outside}
        rows = [{"quantity": name, "value": float(value), "n": len(labels)} for name, value in found.items()]
        pixels = (samples.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        picture = {
            "id": "samples",
            "paper": "J-1",
            "title": "Samples of the network",
            "caption": f"Chains of {self.steps} Langevin steps from uniform noise; "
            + ("one column a class" if self.climb == "class" else "all on log p(x)"),
            "images": pixels,
            "columns": columns,
        }
        return Measured(rows, pictures=[picture])

    def _sample(self, classifier: Classifier, labels: Tensor, subject: Subject) -> Tensor:
        rng = Randomness.of(subject.seed, range(len(labels)), self.name)
        shape = subject.test.shape
        like = torch.empty(0, device=classifier.device, dtype=classifier.dtype)
        start = rng.fork("start").uniform(shape, like=like)
        sampler = Langevin(self.steps, self.step_size, self.sigma)
        with classifier.frozen():
            walk = sampler.walk(
                classifier,
                start,
                lambda step: rng.fork("step", step).normal(shape, like=like),
                labels if self.climb == "class" else None,
            )
        return walk.images
