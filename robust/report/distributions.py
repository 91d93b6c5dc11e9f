"""The series behind reliability diagrams and detection histograms, binned from logits and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robust.report.accuracy import Outcomes
from robust.report.curves import PANELS, slug
from robust.report.document import CalibrationRow, FigureRow, Series
from robust.statistics import wilson

BINS = 20
SCORE_BINS = 40


def reliability(outcomes: Outcomes, calibration: Sequence[CalibrationRow]) -> list[FigureRow]:
    """Reliability diagrams on clean images, and under up to two shifts or attacks that calibration was measured on.

    Twenty bins of equal width; bars are the share of right predictions, a line joins the same after temperature
    scaling where a temperature is known. The first seed of each model is shown.
    """
    wanted = [outcomes.plan.clean, *[row.under for row in calibration]]
    known = [u for u in dict.fromkeys(wanted) if u is not None and u in outcomes.plan.by_label]
    shown = [models[0] for models in outcomes.plan.groups.values()][:PANELS]
    figures = []
    for under in known[:3]:
        for model in shown:
            if (model, under) not in outcomes.cells:
                continue
            logits = outcomes.cells.logits((model, under))
            if logits.shape[1] == 0:
                continue
            labels = outcomes.cells[model, under]["label"].to_numpy(np.int64)
            temperatures = [
                r.temperature for r in calibration if (r.model, r.under) == (model, under) and r.temperature
            ]
            figures.append(_diagram(model, under, logits, labels, temperatures))
    return figures


def _diagram(
    model: str, under: str, logits: npt.NDArray, labels: npt.NDArray, temperatures: Sequence[float]
) -> FigureRow:
    series = [_bins(logits, labels, "as trained", "bars", 0)]
    if temperatures:
        series.append(_bins(logits / temperatures[0], labels, f"temperature {temperatures[0]:.2f}", "line", 1))
    id = slug("reliability", under, model)
    error = calibration_error(logits, labels)
    return FigureRow(
        id=id,
        file=f"{id}.svg",
        csv=f"{id}.csv",
        group=f"reliability-{under}",
        title=model,
        caption=f"{len(labels):,} images, ECE {error:.3f} ({BINS} bins). Lower strip: images in each bin.",
        x_label="confidence",
        y_label="accuracy",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
        series=series,
    )


def _bins(logits: npt.NDArray, labels: npt.NDArray, name: str, mark: Any, colour: int) -> Series:
    confidence, right = _confidence(logits, labels)
    counts, hits, total = _histogram(confidence, right)
    some = counts > 0
    bars = mark == "bars"
    low, high = wilson(hits[some], counts[some])
    # bars stand on their bin, a line goes through the mean confidence of each bin
    x = (np.arange(BINS) + 0.5)[some] / BINS if bars else (total[some] / counts[some])
    return Series(
        label=name,
        mark=mark,
        colour=colour,
        direct=not bars,
        x=x.tolist(),
        y=(hits[some] / counts[some]).tolist(),
        low=low.tolist() if bars else None,
        high=high.tolist() if bars else None,
        count=counts[some].astype(int).tolist(),
    )


def calibration_error(logits: npt.NDArray, labels: npt.NDArray) -> float:
    """Expected calibration error with equal-width bins: sum_b n_b / N |accuracy_b - confidence_b|."""
    confidence, right = _confidence(logits, labels)
    _, hits, total = _histogram(confidence, right)
    return float(np.abs(hits - total).sum() / max(1, len(labels)))


def _confidence(logits: npt.NDArray, labels: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    z = logits.astype(np.float64)
    confidence = 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
    return confidence, z.argmax(1) == labels


def _histogram(confidence: npt.NDArray, right: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Count, number right and summed confidence of each bin (b/B, (b+1)/B]."""
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS).astype(float)
    hits = np.bincount(index, weights=right.astype(float), minlength=BINS)
    return count, hits, np.bincount(index, weights=confidence, minlength=BINS)


def detection(scores: Iterable[Mapping[str, Any]]) -> list[FigureRow]:
    """Histograms of each detection score on the test set and on the sets to be told from it."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in scores:
        found.setdefault((row["score"], row["model"]), []).append(row)
    figures = []
    for (score, model), sets in list(found.items())[:PANELS]:
        values = [np.asarray(row["values"], np.float64) for row in sets]
        values = [v[np.isfinite(v)] for v in values]
        if not any(len(v) for v in values):
            continue
        edges = _edges(np.concatenate(values))
        series = []
        for position, (row, own) in enumerate(zip(sets, values)):
            counts = np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0]
            share = counts / max(1, len(own))
            x = ((edges[:-1] + edges[1:]) / 2).tolist()
            label = f"{row['set']} (in)" if row.get("inside") else str(row["set"])
            series.append(
                Series(label=label, mark="histogram", colour=position, x=x, y=share.tolist(), count=counts.tolist())
            )
        id = slug("detection", score, model)
        figures.append(
            FigureRow(
                id=id,
                file=f"{id}.svg",
                csv=f"{id}.csv",
                group="detection",
                title=f"{score}: {model}",
                caption="Higher is more in-distribution; the outermost bins hold everything beyond.",
                x_label=score,
                y_label="share of images",
                series=series,
            )
        )
    return figures


def _edges(values: npt.NDArray) -> npt.NDArray[np.float64]:
    low, high = np.quantile(values, [0.005, 0.995])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, SCORE_BINS + 1)
