"""Conformal: sets that hold under attack need logits under noise, of the calibrate split and of attacked images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.calibrate import set_row
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, default_device, network_of, one_thread, split_of
from tasks.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from robust.calibration.calibrator import SmoothedSetPredictor
    from robust.classifier import Classifier
    from robust.judging import Evaluation
    from robust.study import Study

SAMPLES = 200  # test samples, unless the calibrator's `on.samples` says otherwise: each costs hundreds of passes


@cached_task(
    "conformal",
    version=2,
    roots=("robust.judging", "robust.calibration.conformal", "robust.calibration.intervals"),
)
def conformal(work: Work, store: Store) -> Manifest:
    """Coverage and size of the sets under every evaluation: rows {under, calibrator, coverage, coverage_low, ...}."""
    from robust.calibration.intervals import Resamples
    from robust.judging import judge
    from robust.registry import create

    one_thread()
    settings, context = work.settings, work.context
    classifier = network_of(work, store)
    predictor = cast("SmoothedSetPredictor", create("calibrator", settings["calibrator"]))
    images, labels, ids = split_of(context["dataset"], "calibrate").batch(slice(0, settings["calibrate"]))
    fitted = predictor.fit(_noisy(predictor, classifier, images, ids, settings, "calibrate"), labels)
    images, labels, ids = split_of(context["dataset"], "test").batch(slice(0, settings["samples"]))
    resamples = Resamples.of(len(labels), settings["seed"])
    rows = []
    for label, given in settings["evaluations"].items():
        evaluation = cast("Evaluation", create(("attack", "corruption"), given))
        judged = judge(classifier, images, labels, ids, evaluation, settings["seed"], settings["batch"])
        noisy = _noisy(predictor, classifier, judged.images, ids, settings, label)
        summary = set_row(predictor.sets(noisy, fitted), labels, resamples)
        rows.append({"under": label, "calibrator": settings["label"], **summary})
    return work.manifest(files={"rows": store.put(json.dumps(rows, sort_keys=True).encode(), "conformal.json")})


def _noisy(
    predictor: SmoothedSetPredictor, classifier: Classifier, images: Tensor, ids: Tensor, settings: Any, purpose: str
) -> Tensor:
    """Logits [N,M,K] of noisy copies of images [N,C,H,W], a batch at a time."""
    import torch

    from robust.randomness import Randomness

    rng = Randomness.of(settings["seed"], ids, settings["label"], purpose)
    return torch.cat(
        [
            predictor.noisy_logits(
                classifier, images[rows].to(classifier.device, classifier.dtype), rng.select(rows)
            ).cpu()
            for rows in torch.arange(len(images)).split(settings["batch"])
        ]
    )


def conformal_works(study: Study, built: Built, data: Manifest) -> dict[str, Work]:
    """The robust set predictors of one network, by label; under clean images and every l2 attack of fixed size."""
    from robust.attacks.attack import FixedBudget
    from robust.calibration.calibrator import SmoothedSetPredictor
    from robust.corruptions.clean import Clean

    digests, sizes = cast("dict[str, str]", data.facts["digests"]), cast("dict[str, int]", data.facts["sizes"])
    # the guarantee is about the calibrate split's own distribution: a shift before the attack is outside of it
    entries = [e for e in study.evaluations if e.on.covers(built.network.group) and e.after is None]
    judged = {
        entry.label: entry.method
        for entry in entries
        if isinstance(entry.method, Clean)
        or (isinstance(entry.method, FixedBudget) and entry.method.threat.norm == "l2")
    }
    device = default_device()
    return {
        entry.label: conformal.work(
            label=f"{built.id}/{entry.label}",
            settings={
                **built.parts,
                "label": entry.label,
                "calibrator": entry.method.settings(),
                "evaluations": {label: method.settings() for label, method in judged.items()},
                "calibrate": min(sizes["calibrate"], 5 * (entry.on.samples or SAMPLES)),
                "samples": min(sizes["test"], entry.on.samples or SAMPLES),
                "seed": study.evaluation_seed,
                "batch": study.batch,
            },
            reads={**built.reads(), "calibrate": digests["calibrate"], "test": digests["test"]},
            roots=modules_behind(entry.method, *judged.values(), *built.methods),
            numerics=Numerics.of(device),
            context={"dataset": study.dataset.settings(), "device": device},
            home=built.home,
        )
        for entry in study.calibrators
        if isinstance(entry.method, SmoothedSetPredictor) and entry.on.covers(built.network.group)
    }
