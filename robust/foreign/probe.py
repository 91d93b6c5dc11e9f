"""Probe: what does this network expect, and which of the usual mistakes stand between it and the data?

Size, layout, range, normalisation, channel order, output and class order are hypotheses. They are ranked on some
labelled images; then each correction must prove itself on others: without it, the network gets significantly fewer of
them right (one-sided sign test on the same samples, Holm over the corrections). What does not prove itself is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from robust.datasets.dataset import Dataset
from robust.foreign import findings, shapes
from robust.foreign.access import access_of, instability
from robust.foreign.bench import Bench, better
from robust.foreign.findings import Finding
from robust.foreign.hypotheses import Declared, Step, layouts, orders, scalings, sees, sizes
from robust.foreign.loaded import ForeignError, Loaded
from robust.foreign.outputs import kind_of
from robust.foreign.preparation import Preparation
from robust.statistics import holm, wilson

MOST = 416  # samples looked at
QUERIED = 170  # where no gradient can be had: each look may be a slow or paid query, and fewer hypotheses matter
SHARE = 0.4  # of them that choose; the others confirm
LEVEL = 0.01  # of the confirming tests together
SATISFIED = 0.9  # clean accuracy above which the network evidently sees what it was trained on

NOTHING = Declared()

Access = Literal["gradient", "scores", "labels"]


@dataclass(frozen=True)
class Examination:
    """What the probe found.

    Attributes:
        preparation: what the evaluation will put before and behind the network.
        findings: the mistakes, each with evidence and remedy.
        looked: samples that the probe looked at, those that chose and those that confirmed.
        accuracy, low, high, n: clean accuracy with it on `n` samples that chose nothing, with its 95 % Wilson interval.
        access: whether gradients, scores or labels alone can be had.
    """

    preparation: Preparation
    findings: list[Finding] = field(default_factory=list)
    accuracy: float = 0.0
    low: float = 0.0
    high: float = 1.0
    n: int = 0
    looked: int = 0
    access: Access = "gradient"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in ("accuracy", "low", "high", "n", "looked", "access")}
        found = [finding.to_json() for finding in self.findings]
        return {**plain, "preparation": self.preparation.model_dump(mode="json"), "findings": found}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Examination:
        """What `to_json` wrote."""
        found = [Finding(**finding) for finding in data["findings"]]
        return cls(**{**data, "preparation": Preparation.model_validate(data["preparation"]), "findings": found})


def examine(loaded: Loaded, data: Dataset, declared: Declared = NOTHING) -> Examination:
    """Find the preparation under which the network gets the most right, and prove each part of it.

    Args:
        loaded: the network, in eval mode.
        data: labelled; its first `MOST` samples are used (`QUERIED` of a black box), which a `Dataset` holds in
            random order.
        declared: what is known; a declared part that is refuted is reported like any other mistake.

    Raises:
        ForeignError: if the network takes images of no known shape, lacks a class, or is no better than chance under
            every hypothesis.
    """
    if not data.labelled:
        raise ForeignError(f"{data.name} has no labels: nothing on it can be right or wrong")
    bench = _bench(loaded, data, MOST)
    start, found = shapes.runs(bench, _as_declared(data, declared))
    notes = [*found, *_mode(loaded, bench, start)]
    start, said = _answers(bench, start)
    notes += said
    access = access_of(bench, start)
    bench = bench if access == "gradient" else _bench(loaded, data, QUERIED)
    best, steps = _corrected(bench, start, declared)
    proven, confirmed = _confirmed(bench, best, steps)
    return _concluded(bench, proven, notes + confirmed, access)


def _bench(loaded: Loaded, data: Dataset, samples: int) -> Bench:
    sample = data.subset(slice(0, samples))
    return Bench(loaded.module, sample, max(1, round(SHARE * len(sample))))


def taken_as_declared(loaded: Loaded, data: Dataset, declared: Declared = NOTHING) -> Examination:
    """No hypothesis is tried: the network as the user says, and what access it gives."""
    bench = Bench(loaded.module, data.subset(slice(0, MOST)), 1)
    start, _ = _answers(bench, _as_declared(data, declared))
    return Examination(start, access=access_of(bench, start))


def _as_declared(data: Dataset, declared: Declared) -> Preparation:
    return Preparation(
        shape=data.shape,
        num_classes=len(data.classes),
        mean=declared.mean,
        std=declared.std,
        columns=declared.columns(data.classes),
    )


def _mode(loaded: Loaded, bench: Bench, start: Preparation) -> list[Finding]:
    trouble = instability(bench, start)
    if "train mode" in loaded.notes:
        return [Finding("train mode", "the model came in train mode", "evaluated in eval mode; call model.eval()")]
    if trouble:
        remedy = "call model.eval() before the model is exported or returned; the validity checks go on from here"
        return [Finding("train mode", trouble, remedy)]
    return []


def _answers(bench: Bench, start: Preparation) -> tuple[Preparation, list[Finding]]:
    images, _ = bench.images(start.shape, "first")
    raw = bench.raw(start, len(images))
    if not isinstance(raw, Tensor):
        raise ForeignError(f"the network fails on {len(images)} images at once: {raw}")
    kind = kind_of(raw, start.num_classes)
    finding = findings.answering(kind)
    return start.model_copy(update={"answer": kind}), [finding] if finding else []


def _corrected(bench: Bench, start: Preparation, declared: Declared) -> tuple[Preparation, list[Step]]:
    """The best hypothesis on the searching samples, and the corrections that lead to it."""
    best, steps = start, []
    for propose in (scalings, layouts, sizes, orders):
        if propose in (layouts, sizes) and bench.outcome(best, "search").accuracy >= SATISFIED:
            continue
        for step in propose(bench, best, declared):
            best = best.model_copy(update=step.change)
            steps.append(step)
    return best, steps


def _confirmed(bench: Bench, best: Preparation, steps: list[Step]) -> tuple[Preparation, list[Finding]]:
    """Take each correction back in turn on samples that chose none of them; keep those without which more is wrong."""
    dropped = True
    while dropped and steps:
        right = bench.right(best)
        without = [_without(bench, best, step) for step in steps]
        p = holm([0.0 if other is None else better(right, other) for other in without])
        dropped = bool((p > LEVEL).any())
        if dropped:
            worst = int(p.argmax())
            best = best.model_copy(update=steps[worst].undo)
            steps = [step for i, step in enumerate(steps) if i != worst]
    if not steps:
        return best, []
    found = [
        Finding(*step.words, None if other is None else float(other.float().mean()), float(right.float().mean()),
                len(right))
        for step, other in zip(steps, without)
    ]  # fmt: skip
    return best, found


def _without(bench: Bench, best: Preparation, step: Step) -> Tensor | None:
    other = best.model_copy(update=step.undo)
    if other == best:  # a step that only says what is there, such as more outputs than classes
        return None
    return bench.right(other) if isinstance(bench.raw(other), Tensor) else None


def _concluded(bench: Bench, preparation: Preparation, found: list[Finding], access: Access) -> Examination:
    right = bench.right(preparation)
    n, correct = len(right), int(right.sum())
    low, high = (float(limit) for limit in wilson(correct, n))
    _, labels = bench.images(preparation.shape, "confirm")
    chance = float(torch.bincount(labels).max()) / n
    if high <= chance or (low <= chance and n >= 100 and preparation.num_classes > 1 and correct / n <= 1.2 * chance):
        raise ForeignError(findings.guessing(right, labels))
    if any(each.mistake in ("class order", "missing class") for each in found):
        as_given = preparation.model_copy(update={"columns": ()})
        outputs = bench.answer(as_given, "first")[0].shape[1]
        if not sees(right, preparation.num_classes, outputs):  # untrained outputs, too, go with some classes
            raise ForeignError(findings.guessing(bench.right(as_given), labels))
    return Examination(preparation, found, correct / n, low, high, n, len(bench.data), access)
