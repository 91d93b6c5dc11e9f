"""Paired differences between models, on the same samples, with a sentence that says what they are worth."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from robust.report.accuracy import WORST, Outcomes, matrix
from robust.report.document import DifferenceRow
from robust.seeds import Difference, difference, difference_sentence
from robust.statistics import holm

ALL_PAIRS = 10  # groups up to which every pair is compared; beyond, each is compared with the first
ALL_LABELS = 4  # groups up to which every evaluation is compared; beyond, clean and the worst cases are


def difference_rows(outcomes: Outcomes, seed: int = 0) -> list[DifferenceRow]:
    """Every comparison made, with p corrected for how many there are."""
    groups = outcomes.plan.groups
    names = list(groups)
    pairs = list(combinations(names, 2)) if len(names) <= ALL_PAIRS else [(names[0], other) for other in names[1:]]
    found: list[tuple[str, str, str, int, Difference]] = []
    for label in _labels(outcomes, len(names)):
        table = {group: matrix(outcomes, models, label) for group, models in groups.items()}
        for first, second in pairs:
            (ids, a), (other_ids, b) = table[first], table[second]
            common, own, other = np.intersect1d(ids, other_ids, assume_unique=True, return_indices=True)
            if len(common):
                gap = difference(a[:, own], b[:, other], seed=seed)
                found.append((first, second, label, len(common), gap))
    corrected = holm([gap.p for *_, gap in found])
    return [_row(*entry, float(p), _quantity(outcomes, entry[2])) for entry, p in zip(found, corrected)]


def _quantity(outcomes: Outcomes, label: str) -> str:
    if label == outcomes.plan.clean:
        return "clean accuracy"
    spoken = label.replace(WORST, "the worst case of", 1) if label in outcomes.members else label
    return f"accuracy under {spoken}"


def _labels(outcomes: Outcomes, groups: int) -> list[str]:
    if groups <= ALL_LABELS:
        frames = outcomes.plan.frames
        return [label for label in outcomes.labels if label not in frames]
    return [label for label in outcomes.labels if label == outcomes.plan.clean or label in outcomes.members]


def _row(first: str, second: str, label: str, n: int, gap: Difference, corrected: float, what: str) -> DifferenceRow:
    return DifferenceRow(
        first=first,
        second=second,
        label=label,
        n=n,
        effect=gap.effect,
        low=gap.samples.low,
        high=gap.samples.high,
        seeds_low=gap.seeds.low if gap.seeds else None,
        seeds_high=gap.seeds.high if gap.seeds else None,
        p=gap.p,
        p_holm=corrected,
        only_first=gap.only_first,
        only_second=gap.only_second,
        larger_than=gap.larger_than,
        sentence=difference_sentence(gap, first, second, what),
    )
