"""The library's face: a classifier, images and labels, attacks and corruptions in; a ledger out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from robust import ledger
from robust.attacks.attack import Attack
from robust.certificates.contradiction import refuse
from robust.classifier import Classifier
from robust.corruptions.clean import Clean
from robust.judging import Evaluation, judge
from robust.statistics import wilson
from robust.threat import ThreatModel


@dataclass(frozen=True)
class Ledger:
    """The result of `evaluate`: rows, costs, and the tables a person asks for first."""

    rows: pa.Table
    costs: pa.Table
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    asked: int = 0  # samples that were handed in
    stopped_early: bool = False  # the intervals were narrow enough before the last of them

    def frame(self, evaluation: str) -> pd.DataFrame:
        """One row a sample of one evaluation."""
        whole = self.rows.to_pandas()
        found = whole[whole["evaluation"] == evaluation].reset_index(drop=True).infer_objects()
        if found.empty:
            raise KeyError(f"no evaluation {evaluation!r}; there are {', '.join(sorted(set(whole['evaluation'])))}")
        return found

    def summary(self) -> pd.DataFrame:
        """One row an evaluation: accuracy with its 95 % interval, n, cost, verdict, reasons, stopped_early."""
        from robust.summary import summarise

        return summarise(self.rows.to_pandas(), self.evaluations).assign(stopped_early=self.stopped_early)


def evaluate(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    evaluations: Sequence[Evaluation],
    *,
    seed: int = 0,
    ids: Tensor | None = None,
    model: str = "model",
    batch_size: int = 250,
    shard_size: int = 1000,
    until: float | None = None,
    certify_first: bool = True,
) -> Ledger:
    """Judge a classifier by several attacks and corruptions; clean accuracy always comes first.

    Args:
        classifier: images in [0,1] -> logits.
        images: [N,C,H,W] float in [0,1]; labels: [N] int64; ids: [N], 0..N-1 when None.
        evaluations: attacks and corruptions; two of one name are told apart as `pgd`, `pgd-2`...
        seed: keys all random draws, together with ids.
        model: the name written into the ledger.
        until: stop after the first shard at which the 95 % Wilson interval of every evaluation's accuracy is at most
            this wide to either side (0.01: +-1 %). All evaluations then cover one prefix of the samples, so they can
            still be compared pair by pair; images must stand in random order, as those of a `Dataset` do.
        certify_first: see `judge`.

    Returns:
        A `Ledger` with `summary()` and `frame(name)`; `stopped_early` says whether `until` cut it short.

    Raises:
        Contradiction: if an attack succeeds where a bound proved that none can.
    """
    ids = torch.arange(len(labels)) if ids is None else ids
    shards = ((images[rows], labels[rows], ids[rows]) for rows in torch.arange(len(labels)).split(shard_size))
    return evaluate_shards(
        classifier,
        shards,
        evaluations,
        asked=len(labels),
        seed=seed,
        model=model,
        batch_size=batch_size,
        until=until,
        certify_first=certify_first,
    )


def evaluate_shards(
    classifier: Classifier,
    shards: Iterable[tuple[Tensor, Tensor, Tensor]],
    evaluations: Sequence[Evaluation],
    *,
    asked: int,
    seed: int = 0,
    model: str = "model",
    batch_size: int = 250,
    until: float | None = None,
    certify_first: bool = True,
) -> Ledger:
    """As `evaluate`, on images, labels and ids that come shard by shard; `asked` samples in all.

    Raises:
        ValueError: if `until` is not a half-width between 0 and 0.5.
    """
    if until is not None and not 0 < until < 0.5:
        raise ValueError(f"until is the half-width of an interval, such as 0.01 for +-1 %; got {until}")
    named = label_all([Clean(), *[e for e in evaluations if not isinstance(e, Clean)]])
    tables, costs, seen = [], [], 0
    correct = dict.fromkeys(named, 0)
    for shard, (images, labels, ids) in enumerate(shards):
        for label, evaluation in named.items():
            judged = judge(classifier, images, labels, ids, evaluation, seed, batch_size, certify_first)
            tables.append(ledger.table(judged.rows.assign(model=model, seed=seed, evaluation=label)))
            costs.append((model, seed, label, shard, len(labels), judged.seconds, judged.peak_bytes))
            correct[label] += int(judged.rows["correct"].sum())
        seen += len(labels)
        if until is not None and _answered(list(correct.values()), seen, until):
            break
    columns: list[Any] = list(zip(*costs)) if costs else [[] for _ in ledger.COSTS]
    rows = ledger.merge(tables)
    refuse(ledger.frame_of(rows, "distance", "certificate", "radius"), threats_of(named))
    return Ledger(
        rows,
        pa.table([pa.array(c, type=f.type) for c, f in zip(columns, ledger.COSTS)], schema=ledger.COSTS),
        named,
        asked,
        seen < asked,
    )


def _answered(correct: Sequence[int], n: int, until: float) -> bool:
    """Whether every accuracy is known to +-`until` by its 95 % Wilson interval."""
    low, high = wilson(correct, n)
    return bool(((high - low) / 2 <= until).all())


def threats_of(evaluations: Mapping[str, Evaluation]) -> dict[str, ThreatModel]:
    """The threat model of every attack, by label."""
    return {label: method.threat for label, method in evaluations.items() if isinstance(method, Attack)}


def label_all(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """Unique labels in order: the name, then name-2, name-3 for further evaluations of the same name."""
    named: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        label, count = evaluation.name, 1
        while label in named:
            count += 1
            label = f"{evaluation.name}-{count}"
        named[label] = evaluation
    return named
