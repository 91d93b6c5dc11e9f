"""Calibrate: fit the study's calibrators on the calibrate split, measure them under every evaluation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.store import Store

if TYPE_CHECKING:
    from robust.study import Study


@cached_task("calibrate", version=1, roots=("robust.calibration.metrics", "robust.ledger"))
def calibrate(work: Work, store: Store) -> Manifest:
    """Rows {under, calibrator, ece, mce, brier, nll, temperature, ...}: raw confidences and calibrated ones."""
    import torch

    from robust.calibration import metrics
    from robust.calibration.calibrator import Calibrator
    from robust.registry import create

    calibrators = [(c["label"], create("calibrator", c["method"])) for c in work.settings["calibrators"]]
    fitting = _logits(store, work, "calibrate")
    judged = {label: _logits(store, work, f"test/{label}") for label in work.settings["evaluations"]}
    rows: list[dict[str, Any]] = []
    for under, (logits, labels) in judged.items():
        rows.append({"under": under, "calibrator": "none", **metrics.summary(metrics.softmax(logits), labels)})
    for label, method in calibrators:
        if not isinstance(method, Calibrator):
            rows += _set_rows(label, method, fitting, judged)
            continue
        fitted = method.fit(*map(torch.from_numpy, fitting))
        temperature = fitted.get("temperature")
        shown = {"temperature": float(temperature)} if temperature is not None and temperature.numel() == 1 else {}
        for under, (logits, labels) in judged.items():
            probabilities = method.transform(torch.from_numpy(logits), fitted).numpy()
            rows.append({"under": under, "calibrator": label, **metrics.summary(probabilities, labels), **shown})
    return work.manifest(files={"rows": store.put(json.dumps(rows, sort_keys=True).encode(), "calibration.json")})


def _set_rows(label: str, method: Any, fitting: Any, judged: dict[str, Any]) -> list[dict[str, Any]]:
    """Conformal sets: coverage and size under every evaluation."""
    import torch

    from robust.calibration.conformal import set_summary

    fitted = method.fit(*map(torch.from_numpy, fitting))
    return [
        {
            "under": under,
            "calibrator": label,
            **set_summary(method.sets(torch.from_numpy(logits), fitted), torch.from_numpy(labels)),
        }
        for under, (logits, labels) in judged.items()
    ]


def _logits(store: Store, work: Work, prefix: str) -> Any:
    """Logits [N,K] float32 and labels [N] of all shards whose name starts with `prefix/`."""
    import pyarrow as pa

    from robust import ledger

    names = sorted((n for n in work.reads if n.rpartition("/")[0] == prefix), key=lambda n: int(n.rpartition("/")[2]))
    frame = pa.concat_tables([ledger.read(store.get(work.reads[name])) for name in names]).to_pandas()
    return ledger.logits_of(frame), frame["label"].to_numpy(copy=True)


def calibrate_work(
    study: Study, network: str, fitting: list[Manifest], judged: dict[tuple[str, int], Manifest], home: Home
) -> Work:
    """The calibration of one network from its evaluated shards."""
    from robust.calibration.calibrator import SmoothedSetPredictor

    entries = [e for e in study.calibrators if not isinstance(e.method, SmoothedSetPredictor)]
    reads = {f"calibrate/{i}": shard.files["rows"].sha256 for i, shard in enumerate(fitting)}
    reads |= {f"test/{label}/{i}": shard.files["rows"].sha256 for (label, i), shard in judged.items()}
    return calibrate.work(
        label=network,
        settings={
            "calibrators": [{"label": e.label, "method": e.method.settings()} for e in entries],
            "evaluations": list(dict.fromkeys(label for label, _ in judged)),
        },
        reads=reads,
        roots=modules_behind(*(e.method for e in entries)),
        numerics=Numerics.of("cpu", "float64"),
        home=home,
    )
