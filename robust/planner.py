"""The planner: passes counted and seconds predicted before anything is attacked.

Attacks declare what a sample costs at most (`passes`); two short measurements on the classifier give the price of a
pass; the product bounds the time. Samples leave an attack when they fall, so the bound is loose on weak networks: a
pilot (the ledger of a few samples) turns it into an expected value.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from robust.attacks.attack import Attack, input_gradient
from robust.classifier import Classifier
from robust.evaluation import label_all
from robust.judging import Evaluation

CHECKS = 3  # forward passes of the evaluation itself: the clean look, the recheck, and the recheck after rounding


@dataclass(frozen=True)
class Price:
    """Seconds that one image costs, at the batch size that was measured: a forward pass, and a forward with backward.

    Raises:
        ValueError: if a price is not positive, or a gradient is cheaper than nothing.
    """

    forward: float
    gradient: float

    def __post_init__(self) -> None:
        if not 0 < self.forward < float("inf") or not 0 < self.gradient < float("inf"):
            raise ValueError(f"prices must be positive seconds, got {self.forward} and {self.gradient}")

    def seconds(self, forward: float, backward: float) -> float:
        """Seconds of so many passes; every backward pass comes with one of the forward passes."""
        paired = min(forward, backward)
        extra = max(self.gradient - self.forward, 0.0) * (backward - paired)
        return (forward - paired) * self.forward + paired * self.gradient + extra


@dataclass(frozen=True)
class Row:
    """What one evaluation will cost.

    Attributes:
        evaluation: its label.
        samples: how many images.
        forward, backward: passes a sample at most, the evaluation's own looks included; None if the attack declares
            none.
        worst: seconds at most, for samples that withstand everything; None if undeclared.
        expected: seconds by the pilot's mean passes; None without a pilot.
    """

    evaluation: str
    samples: int
    forward: int | None
    backward: int | None
    worst: float | None
    expected: float | None


@dataclass(frozen=True)
class Plan:
    """Rows in the order of the evaluations, and their sum."""

    rows: tuple[Row, ...]

    @property
    def worst(self) -> float | None:
        """Seconds at most of all together; None if one of them is undeclared."""
        return _total([row.worst for row in self.rows])

    @property
    def expected(self) -> float | None:
        """Expected seconds of all together; None without a pilot of each."""
        return _total([row.expected for row in self.rows])

    def data(self) -> list[dict[str, Any]]:
        """Plain data: one mapping a row."""
        return [asdict(row) for row in self.rows]

    def table(self) -> str:
        """The plan for a terminal of 80 columns."""
        lines = [f"{'evaluation':<28}{'samples':>9}{'forward':>10}{'backward':>10}{'at most':>11}{'expected':>11}"]
        for row in self.rows:
            counts = f"{_count(row.forward):>10}{_count(row.backward):>10}"
            times = f"{duration(row.worst):>11}{duration(row.expected):>11}"
            lines.append(f"{_cut(row.evaluation, 28):<28}{row.samples:>9}{counts}{times}")
        return "\n".join([*lines, f"{'in total':<57}{duration(self.worst):>11}{duration(self.expected):>11}"])


def plan(
    evaluations: Sequence[Evaluation],
    samples: int,
    num_classes: int,
    price: Price,
    pilot: pd.DataFrame | None = None,
) -> Plan:
    """Count and predict.

    Args:
        evaluations: attacks and corruptions, labelled as `evaluate` labels them.
        samples: images of each.
        num_classes: K; the cost of targeted attacks depends on it.
        price: see `measure`.
        pilot: ledger rows of the same evaluations on a few samples, such as `evaluate(...).rows.to_pandas()`.

    Raises:
        ValueError: if samples is negative or there are fewer than 2 classes.
    """
    if samples < 0 or num_classes < 2:
        raise ValueError(f"a plan needs samples >= 0 and at least 2 classes, got {samples} and {num_classes}")
    named: Mapping[str, Evaluation] = label_all(evaluations)
    return Plan(tuple(_row(label, e, samples, num_classes, price, pilot) for label, e in named.items()))


def passes_of(evaluation: Evaluation, num_classes: int) -> tuple[int, int] | None:
    """Forward and backward passes that a sample costs at most, the evaluation's own looks included.

    None if the attack declares none: an own attack without `passes`, or one whose work lies outside the classifier's
    meter (a surrogate's passes, the fit of a universal perturbation).
    """
    if not isinstance(evaluation, Attack):
        return (1, 0)
    if not _declared(evaluation):
        return None
    forward, backward = evaluation.passes(num_classes)
    return forward + CHECKS, backward


def measure(classifier: Classifier, images: Tensor, batch_size: int = 250, repeats: int = 3) -> Price:
    """Seconds a sample of a forward pass, and of a forward and backward pass to the input; medians after a warm-up.

    Args:
        classifier: its mode and flags are restored afterwards.
        images: [N,C,H,W] in [0,1], N >= 1; the first `batch_size` are used, repeated if there are fewer.
        batch_size: what the evaluation will use: the price of a pass depends on it.
    """
    if not len(images):
        raise ValueError("measuring a pass needs at least one image")
    rows = torch.arange(batch_size) % len(images)
    x = images[rows].to(classifier.device, classifier.dtype)
    with classifier.frozen():
        return Price(
            forward=_median(lambda: _forward(classifier, x), x.device, repeats) / batch_size,
            gradient=_median(lambda: input_gradient(classifier, x, lambda z: z.sum(1)), x.device, repeats) / batch_size,
        )


def duration(seconds: float | None) -> str:
    """How a prediction is written: two digits are more than it knows."""
    if seconds is None:
        return "unknown"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _row(
    label: str, evaluation: Evaluation, samples: int, num_classes: int, price: Price, pilot: pd.DataFrame | None
) -> Row:
    passes = passes_of(evaluation, num_classes)
    worst = None if passes is None else samples * price.seconds(*passes)
    forward, backward = passes or (None, None)
    return Row(label, samples, forward, backward, worst, _expected(label, evaluation, samples, price, pilot))


def _expected(
    label: str, evaluation: Evaluation, samples: int, price: Price, pilot: pd.DataFrame | None
) -> float | None:
    seen = pilot[pilot["evaluation"] == label] if pilot is not None else None
    if seen is None or seen.empty:
        return None
    looks = CHECKS - 1 if isinstance(evaluation, Attack) else 0  # the ledger counts the clean look already
    return samples * price.seconds(float(seen["forward"].mean()) + looks, float(seen["backward"].mean()))


def _median(run: Any, device: torch.device, repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return max(statistics.median(seconds), 1e-9)


@torch.no_grad()
def _forward(classifier: Classifier, images: Tensor) -> Tensor:
    logits: Tensor = classifier(images)
    return logits


def _declared(attack: Attack) -> bool:
    inner = getattr(attack, "attack", None)
    own = type(attack).passes is not Attack.passes and not attack.needs
    return own and (not isinstance(inner, Attack) or _declared(inner))


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def _count(passes: int | None) -> str:
    return "unknown" if passes is None else f"{passes:,}"


def _cut(text: str, width: int) -> str:
    return text if len(text) < width else text[: width - 2] + "… "
