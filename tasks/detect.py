"""Detect: one network's scores on its own test set and on every out-of-distribution set, and how well they separate."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, classifier_of, default_device, one_thread, split_of
from tasks.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robust.classifier import Classifier
    from robust.datasets.dataset import Dataset
    from robust.detection.attacked import ScoreAttack
    from robust.randomness import Randomness
    from robust.study import Study

FIT_SAMPLES = 10_000  # training samples that detectors are fitted on
KEPT_SCORES = 2_000  # scores of each set that histograms are drawn from


@cached_task("detect", version=1, roots=("robust.detection.metrics", "robust.detection.attacked", "robust.ledger"))
def detect(work: Work, store: Store) -> Manifest:
    """Metrics {score, ood, auroc, aupr, fpr95, ...}, ledger rows of all scores, and samples for the histograms."""
    from robust.datasets.adapt import adapt
    from robust.detection import metrics
    from robust.registry import create

    one_thread()
    classifier = classifier_of(work.settings, store.get(work.reads["weights"]), work.context["device"])
    own = split_of(work.context["dataset"], "test")
    sets = {own.name: own} | {
        label: adapt(split_of(settings, "test"), own.shape) for label, settings in work.context["ood"].items()
    }
    detectors = {entry["label"]: create("detector", entry["method"]) for entry in work.settings["detectors"]}
    scores = _scores(classifier, split_of(work.context["dataset"], "train"), sets, detectors, work.settings)
    rows, kept = [], []
    for detector, by_set in scores.items():
        inside = by_set[own.name].numpy()
        for name, outside in by_set.items():
            values = outside[:KEPT_SCORES].tolist()
            kept.append({"score": detector, "set": name, "inside": name == own.name, "values": values})
            if name != own.name:
                found = metrics.summary(inside, outside.numpy(), detector)
                rows.append({"score": detector, "ood": name, "n": len(outside), **found})
    # the attacked sets are judged like the others; the ledger holds the scores of the published images alone
    plain = {detector: {name: by_set[name] for name in sets} for detector, by_set in scores.items()}
    with tempfile.TemporaryDirectory(dir=work.folder.cache) as folder:
        path = Path(folder) / "scores.parquet"
        _write_ledger(plain, sets, path)
        ledger_rows = store.put(path, "scores.parquet")
    return work.manifest(
        files={
            "metrics": store.put(json.dumps(rows, sort_keys=True).encode(), "detection.json"),
            "kept": store.put(json.dumps(kept, sort_keys=True).encode(), "scores.json"),
            "rows": ledger_rows,
        }
    )


def _scores(
    classifier: Classifier, train: Dataset, sets: dict[str, Dataset], detectors: dict[str, Any], settings: Any
) -> dict[str, dict[str, Tensor]]:
    """Scores by detector and set; one pass over each set gives the features that all detectors share.

    Where the study names a score attack, each outlier set stands there once more, moved until this detector likes it.
    """
    from robust.detection.attacked import ScoreAttack
    from robust.detection.detector import Detector, head_of
    from robust.randomness import Randomness

    seed, given = settings["seed"], settings.get("score_attack")
    attack = None if given is None else ScoreAttack.model_validate(given)
    fit_set = train.subset(slice(0, FIT_SAMPLES))
    features, logits, labels = _pass(classifier, fit_set)
    passes = {name: _pass(classifier, data) for name, data in sets.items()}
    found: dict[str, dict[str, Tensor]] = {}
    for label, detector in detectors.items():
        if isinstance(detector, Detector):
            head = head_of(classifier, features, logits) if detector.needs_head else None
            fitted = detector.fit_features(features, logits, labels, head)
            found[label] = {name: detector.score_features(f, z, fitted) for name, (f, z, _) in passes.items()}
        else:
            rng = Randomness.of(seed, fit_set.ids.tolist(), label)
            fitted = detector.fit_images(classifier, *fit_set.batch(slice(None))[:2], rng)
            found[label] = {
                name: detector.score_images(
                    classifier, data.batch(slice(None))[0], fitted, Randomness.of(seed, data.ids.tolist(), label, name)
                )
                for name, data in sets.items()
            }
        if attack is not None:
            outliers = {name: data for name, data in sets.items() if name != next(iter(sets))}
            found[label] |= _attacked(classifier, outliers, detector, fitted, attack, Randomness.of(seed, [], label))
    return found


def _attacked(
    classifier: Classifier,
    sets: dict[str, Dataset],
    detector: Any,
    fitted: dict[str, Tensor],
    attack: ScoreAttack,
    rng: Randomness,
) -> dict[str, Tensor]:
    """The scores of the outlier sets after the attack on this detector, under names of their own."""
    from robust.randomness import Randomness

    found = {}
    for name, data in sets.items():
        images, _, ids = data.subset(slice(0, attack.samples)).batch(slice(None))
        draws = Randomness.of(rng.seed, ids, *rng.purpose, name)
        x = images.to(classifier.device, classifier.dtype)
        found[f"{name}, attacked {attack.threat}"] = attack.raised(classifier, detector, fitted, x, draws)[1].cpu()
    return found


def _pass(classifier: Classifier, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    features, logits, labels = [], [], []
    with torch.no_grad():
        for images, batch_labels, _ in data.batches(250):
            x = images.to(classifier.device, classifier.dtype)
            features.append(classifier.features(x).cpu())
            logits.append(classifier(x).cpu())
            labels.append(batch_labels)
    return torch.cat(features), torch.cat(logits), torch.cat(labels)


def _write_ledger(scores: dict[str, dict[str, Tensor]], sets: dict[str, Dataset], path: Path) -> None:
    import pandas as pd

    from robust import ledger

    frames: list[pd.DataFrame] = [
        pd.DataFrame({"evaluation": f"{detector}@{name}", "sample": sets[name].ids, "score": values.numpy()})
        for detector, by_set in scores.items()
        for name, values in by_set.items()
    ]
    ledger.write(ledger.table(pd.concat(frames, ignore_index=True)), path)


def detect_work(study: Study, built: Built, data: Manifest) -> Work:
    """The detection of one network."""
    digests = cast("dict[str, str]", data.facts["digests"])
    device = default_device()
    ood = {entry.label: entry.method.settings() for entry in study.ood}
    return detect.work(
        label=built.id,
        settings={
            **built.parts,
            "detectors": [{"label": e.label, "method": e.method.settings()} for e in study.detectors],
            "seed": study.evaluation_seed,
            **({} if study.score_attack is None else {"score_attack": study.score_attack.model_dump(mode="json")}),
        },
        reads={
            "weights": built.weights(),
            "train": digests["train"],
            "test": digests["test"],
            **{f"ood/{label}": split_of(settings, "test").digest for label, settings in ood.items()},
        },
        roots=modules_behind(*(e.method for e in (*study.detectors, *study.ood)), *built.methods),
        numerics=Numerics.of(device),
        context={"dataset": study.dataset.settings(), "ood": ood, "device": device},
        home=built.home,
    )
