"""Calibrate: fit the study's calibrators on the calibrate split, measure them under every evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.store import Store

if TYPE_CHECKING:
    from robust.calibration.intervals import Resamples
    from robust.study import Study

Array = np.ndarray[Any, np.dtype[Any]]


@cached_task(
    "calibrate", version=2, roots=("robust.calibration.intervals", "robust.calibration.conformal", "robust.ledger")
)
def calibrate(work: Work, store: Store) -> Manifest:
    """Rows {under, calibrator, ece, ece_low, ece_high, mce, ..., temperature}: raw confidences and calibrated ones.

    `draws` keeps the resamples of the metrics that claims compare. All networks judged on the same samples are
    resampled alike, so the difference of two networks' draws is a paired bootstrap.
    """
    import torch

    from robust.calibration import metrics
    from robust.calibration.calibrator import Calibrator
    from robust.registry import create

    calibrators: list[tuple[str, Any]] = [
        (c["label"], create("calibrator", c["method"])) for c in work.settings["calibrators"]
    ]
    fitting = [torch.from_numpy(part) for part in _logits(store, work, "calibrate")[:2]]
    judged = _judged(store, work)
    found = [(under, "none", *sample.measured(metrics.softmax(sample.logits))) for under, sample in judged.items()]
    for label, method in calibrators:
        fitted = method.fit(*fitting)
        for under, sample in judged.items():
            if isinstance(method, Calibrator):
                row, draws = sample.measured(method.transform(torch.from_numpy(sample.logits), fitted).numpy())
                found.append((under, label, {**row, **_temperature(fitted)}, draws))
            else:
                row = set_row(method.sets(torch.from_numpy(sample.logits), fitted), sample.labels, sample.resamples)
                found.append((under, label, row, {}))
    rows = [{"under": under, "calibrator": label, **row} for under, label, row, _ in found]
    return work.manifest(
        files={
            "rows": store.put(json.dumps(rows, sort_keys=True).encode(), "calibration.json"),
            "draws": store.put(_packed(found, {label: each.ids for label, each in judged.items()}), "draws.parquet"),
        }
    )


@dataclass(frozen=True)
class _Judged:
    """One evaluation of the network: logits [N,K] and labels [N] in the order of their sample ids, and resamples."""

    logits: Array
    labels: Array
    ids: str  # digest of the sample ids
    resamples: Resamples
    kept: tuple[str, ...]

    def measured(self, probabilities: Array) -> tuple[dict[str, Any], dict[str, Array]]:
        """A row of all metrics with their bounds, and the draws that are kept."""
        from robust.calibration import intervals, metrics

        estimate = metrics.summary(probabilities, self.labels)
        draws = intervals.summary_draws(probabilities, self.labels, self.resamples)
        kept = {key: draws[key] for key in self.kept if estimate[key] is not None}
        return {**estimate, **intervals.columns(intervals.bounds(estimate, draws))}, kept


def _judged(store: Store, work: Work) -> dict[str, _Judged]:
    """Every evaluation by label; those of as many samples share their resamples."""
    from robust.calibration.intervals import Resamples

    settings, drawn, found = work.settings, dict[int, Resamples](), {}
    for label in settings["evaluations"]:
        logits, labels, ids = _logits(store, work, f"test/{label}")
        if len(labels) not in drawn:
            drawn[len(labels)] = Resamples.of(len(labels), settings["seed"], settings["resamples"])
        digest = hashlib.sha256(ids.tobytes()).hexdigest()
        found[label] = _Judged(logits, labels, digest, drawn[len(labels)], tuple(settings["kept"]))
    return found


def set_row(sets: Any, labels: Any, resamples: Resamples) -> dict[str, float]:
    """Coverage and size of prediction sets [N,K], with their bounds."""
    import torch

    from robust.calibration import intervals
    from robust.calibration.conformal import set_summary

    estimate = set_summary(sets, torch.as_tensor(labels))
    draws = intervals.set_draws(sets.numpy(), np.asarray(labels), resamples)
    return {**estimate, **intervals.columns(intervals.bounds(estimate, draws))}


def _temperature(fitted: Mapping[str, Any]) -> dict[str, float]:
    found = fitted.get("temperature")
    return {"temperature": float(found)} if found is not None and found.numel() == 1 else {}


def _packed(found: Iterable[tuple[str, str, Any, Mapping[str, Array]]], ids: Mapping[str, str]) -> bytes:
    """The draws as parquet: under, calibrator, metric, samples (digest of their ids), draws."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"under": under, "calibrator": label, "metric": metric, "samples": ids[under], "draws": values.tolist()}
        for under, label, _, draws in found
        for metric, values in draws.items()
    ]
    names = [(name, pa.string()) for name in ("under", "calibrator", "metric", "samples")]
    target = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(rows, pa.schema([*names, ("draws", pa.list_(pa.float32()))])), target, compression="zstd"
    )
    return bytes(target.getvalue())


def draws_of(manifest: Manifest, store: Store) -> list[dict[str, Any]]:
    """The kept draws of one network: rows {under, calibrator, metric, samples, draws [B]}."""
    import pyarrow.parquet as pq

    table = pq.read_table(store.get(manifest.files["draws"]))
    draws = np.asarray(table.column("draws").combine_chunks().flatten(), np.float64).reshape(len(table), -1)
    plain = table.drop_columns("draws").to_pylist()
    return [{**row, "draws": values} for row, values in zip(plain, draws)]


def _logits(store: Store, work: Work, prefix: str) -> tuple[Array, Array, Array]:
    """Logits [N,K] float32, labels [N] and sample ids [N] of the shards named `prefix/...`, in the order of the ids."""
    import pyarrow as pa

    from robust import ledger

    names = [name for name in work.reads if name.rpartition("/")[0] == prefix]
    whole = pa.concat_tables([ledger.read(store.get(work.reads[name])) for name in names])
    frame = whole.to_pandas().sort_values("sample")
    return ledger.logits_of(frame), frame["label"].to_numpy(copy=True), frame["sample"].to_numpy(copy=True)


def calibrate_work(
    study: Study, network: str, fitting: list[Manifest], judged: dict[tuple[str, int], Manifest], home: Home
) -> Work:
    """The calibration of one network from its evaluated shards."""
    from robust.calibration.calibrator import SmoothedSetPredictor
    from robust.calibration.intervals import RESAMPLES
    from robust.claims.calibration_gap import Metric

    entries = [e for e in study.calibrators if not isinstance(e.method, SmoothedSetPredictor)]
    reads = {f"calibrate/{i}": shard.files["rows"].sha256 for i, shard in enumerate(fitting)}
    reads |= {f"test/{label}/{i}": shard.files["rows"].sha256 for (label, i), shard in judged.items()}
    return calibrate.work(
        label=network,
        settings={
            "calibrators": [{"label": e.label, "method": e.method.settings()} for e in entries],
            "evaluations": list(dict.fromkeys(label for label, _ in judged)),
            "seed": study.evaluation_seed,
            "resamples": RESAMPLES,
            "kept": sorted(get_args(Metric)),
        },
        reads=reads,
        roots=modules_behind(*(e.method for e in entries)),
        numerics=Numerics.of("cpu", "float64"),
        home=home,
    )
