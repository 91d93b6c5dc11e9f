"""Flip table: how often the prediction changes along the perturbation sequences of ImageNet-P, relative to a base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robust.report.accuracy import Outcomes
from robust.report.document import FlipRow
from robust.seeds import t_interval
from robust.shift import flip_rate, flips
from robust.statistics import bootstrap

MEAN = "mean of all"
Place = tuple[str, int]  # sequence, difficulty
Share = npt.NDArray[np.float64]


def flip_rows(outcomes: Outcomes, base: str = "") -> list[FlipRow]:
    """One row for each group and sequence that it was judged on frame by frame, and the mean of each difficulty.

    A sequence counts as far as its frames were judged without a gap from frame 0; `frames` says how far that is.

    Args:
        outcomes: of the study, whose evaluations name `sequence`, `frame` and `severity`.
        base: the group whose flip probabilities are the unit of the flip rate (ImageNet-P takes AlexNet); the study's
            first when empty.
    """
    found = {group: _shares(outcomes, models) for group, models in outcomes.plan.groups.items()}
    found = {group: own for group, own in found.items() if own}
    if not found:
        return []
    unit = base or next(iter(found))
    means = {group: {place: float(np.mean(rows)) for place, (rows, _) in own.items()} for group, own in found.items()}
    rows = []
    for group, own in found.items():
        for difficulty in sorted({place[1] for place in own}):
            places = [place for place in own if place[1] == difficulty]
            rows += [
                _row(group, place, *own[place], {place: means[group][place]}, unit, means.get(unit, {}))
                for place in places
            ]
            if len(places) > 1:
                whole = _mean([own[place][0] for place in places])
                frames = min(own[place][1] for place in places)
                flipped = {place: means[group][place] for place in places}
                rows.append(_row(group, (MEAN, difficulty), whole, frames, flipped, unit, means.get(unit, {})))
    return rows


def _shares(outcomes: Outcomes, models: Sequence[str]) -> dict[Place, tuple[list[Share], int]]:
    """Of each sequence the share of flips of every image [N], seed by seed, and how many frames they stand on."""
    places: dict[Place, dict[int, str]] = {}
    for entry in outcomes.plan.evaluations:
        if entry["label"] in outcomes.plan.frames:
            place = str(entry["sequence"]), int(entry["severity"])
            places.setdefault(place, {})[int(entry["frame"])] = entry["label"]
    found: dict[Place, tuple[list[Share], int]] = {}
    for place, labels in places.items():
        judged = [_judged(outcomes, model, labels) for model in models]
        classes = [table for table in judged if table is not None]
        if classes:
            frames = min(table.shape[1] for table in classes)
            found[place] = [flips(table[:, :frames], "noise" in place[0]) for table in classes], frames
    return found


def _judged(outcomes: Outcomes, model: str, labels: dict[int, str]) -> npt.NDArray[np.int64] | None:
    """Predicted classes [N,T] of one network on frames 0, 1, 2... of the images judged on all; None below two."""
    keys = []
    for number in range(len(labels)):
        if number not in labels or (model, labels[number]) not in outcomes.cells:
            break
        keys.append((model, labels[number]))
    if len(keys) < 2:
        return None
    frames = [outcomes.cells[key].set_index("sample")["prediction"] for key in keys]
    common = frames[0].index
    for frame in frames[1:]:
        common = common.intersection(frame.index)
    table = np.stack([frame.loc[common].to_numpy(np.int64) for frame in frames], axis=1)
    return table if len(table) else None


def _mean(sequences: Sequence[list[Share]]) -> list[Share]:
    """Mean over sequences of every image's share, seed by seed; on the images and seeds that all sequences have."""
    seeds = min(map(len, sequences))
    images = min(len(share) for shares in sequences for share in shares)
    return [np.mean([shares[seed][:images] for shares in sequences], axis=0) for seed in range(seeds)]


def _row(
    group: str, place: Place, shares: list[Share], frames: int, flipped: dict[Place, float], unit: str,
    base: dict[Place, float],
) -> FlipRow:  # fmt: skip
    """Flip probability with its interval: over seeds, or over images where one network says nothing about seeds."""
    seeds = [float(share.mean()) for share in shares]
    interval = t_interval(seeds) if len(seeds) > 1 else bootstrap(np.mean, shares[0])
    low, high = (min(1.0, max(0.0, float(limit))) for limit in interval[1:3])
    row: dict[str, Any] = {
        "group": group,
        "sequence": place[0],
        "severity": place[1],
        "frames": frames,
        "n": len(shares[0]),
        "seeds": len(seeds),
        "probability": float(np.mean(list(flipped.values()))),
        "low": low,
        "high": high,
        "base": unit,
    }
    return FlipRow.model_validate(row | {"rate": _rate(flipped, base)})


def _rate(flipped: dict[Place, float], base: dict[Place, float]) -> float | None:
    """Flip probabilities over the base's, mean over sequences; None where the base never flips or was not judged."""
    own, other = ({f"{s} {d}": p for (s, d), p in each.items() if (s, d) in flipped} for each in (flipped, base))
    try:
        return flip_rate(own, other).mean
    except ValueError:
        return None
