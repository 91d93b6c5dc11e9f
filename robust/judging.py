"""The one evaluation loop: a shard of samples and one evaluation in, ledger rows out.

Whatever an attack returns is checked here again: inside the ball, inside the box, prediction really wrong, and once
more after rounding to 8 bits inside the ball. An attack cannot report a win that it does not have.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robust import ledger
from robust.attacks.attack import Attack, FixedBudget, SmallestDistance, fooled
from robust.certificates.first import Screen, screen_for
from robust.classifier import Classifier, Metered
from robust.corruptions.corruption import Corruption
from robust.memory_layout import channels_last_copy
from robust.numerics import exact_float32
from robust.randomness import Randomness
from robust.threat import TOLERANCE, ThreatModel

Evaluation = Attack | Corruption


@dataclass(frozen=True)
class Judged:
    """What one evaluation found on a shard: ledger rows, the judged images, and the time it took."""

    rows: pd.DataFrame
    images: Tensor
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class _Task:
    """What is done to every batch of a shard.

    `screen` says which samples need no attack because they are proven, `search` is a faster copy to attack.
    """

    evaluation: Evaluation
    seed: int
    screen: Screen | None
    search: Classifier | None


def judge(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    evaluation: Evaluation,
    seed: int,
    batch_size: int = 250,
    certify_first: bool = True,
) -> Judged:
    """Evaluate one shard.

    Args:
        classifier: images in [0,1] -> logits; its mode and flags are restored afterwards.
        images: [N,C,H,W] float in [0,1].
        labels: [N] int64.
        ids: [N] int64, unique; they key all randomness.
        evaluation: an attack or a corruption.
        seed: the study's seed for attacks, 0 <= seed < 2**53.
        batch_size: samples a pass; halved by itself when memory runs out.
        certify_first: spend no attack on samples that the interval bound proves at this eps (where it applies): their
            rows say certificate `verified` and radius eps. Never changes `correct`, only cost.

    Raises:
        ValueError: if images leave the box or hold NaN, labels leave the classes, or logits are not finite.
    """
    start = time.perf_counter()
    with classifier.frozen(), exact_float32():
        parts = []
        _check_inputs(classifier, images, labels, ids)
        asks = certify_first and len(labels) > 0
        screen = screen_for(classifier, tuple(images.shape[1:]), evaluation) if asks else None
        attacks = isinstance(evaluation, Attack) and not evaluation.needs
        search = channels_last_copy(classifier, images[:2]) if attacks else None
        task = _Task(evaluation, seed, screen, search)
        for rows in torch.arange(len(labels)).split(batch_size):
            parts += _judge_or_halve(classifier, images[rows], labels[rows], ids[rows], task)
    seconds = time.perf_counter() - start
    if not parts:
        return Judged(pd.DataFrame(columns=ledger.SCHEMA.names), images, seconds, 0)
    frame = pd.concat([rows for rows, _ in parts], ignore_index=True)
    return Judged(frame, torch.cat([judged for _, judged in parts]), seconds, _peak_bytes(classifier))


def _judge_or_halve(
    classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor, task: _Task
) -> list[tuple[pd.DataFrame, Tensor]]:
    try:
        return [_judge_batch(classifier, images, labels, ids, task)]
    except (torch.OutOfMemoryError, MemoryError):
        if len(labels) == 1:
            raise
    if classifier.device.type == "cuda":
        torch.cuda.empty_cache()
    half = len(labels) // 2  # legal: randomness belongs to the sample, not to the batch
    return [
        part
        for rows in (slice(None, half), slice(half, None))
        for part in _judge_or_halve(classifier, images[rows], labels[rows], ids[rows], task)
    ]


def _judge_batch(
    classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor, task: _Task
) -> tuple[pd.DataFrame, Tensor]:
    device, dtype, evaluation = classifier.device, classifier.dtype, task.evaluation
    x, y = images.to(device, dtype), labels.to(device)
    rng = Randomness.of(task.seed, ids, evaluation.name)
    if isinstance(evaluation, Corruption):
        judged = evaluation.apply(x, rng)
        _check_box(judged, evaluation.name)
        rows = _rows(ids, labels, _logits(classifier, judged))
        rows["forward"] = 1
        return rows.assign(backward=0, queries=0), judged.cpu()
    return _judge_attack(classifier, x, y, ids, evaluation, rng, task)


def _judge_attack(
    classifier: Classifier, x: Tensor, y: Tensor, ids: Tensor, attack: Attack, rng: Randomness, task: _Task
) -> tuple[pd.DataFrame, Tensor]:
    screen = task.screen
    meter = Metered(classifier, len(y))
    clean = _logits(meter, x)
    if clean.shape[1] < attack.min_classes:
        raise ValueError(f"{attack.name} needs at least {attack.min_classes} classes, this model has {clean.shape[1]}")
    right = clean.argmax(1) == y
    proven = right & screen(x, y) if screen else torch.zeros_like(right)
    judged, standing = x.clone(), right & ~proven
    if standing.any():
        found = _searched(attack, meter.select(standing), x[standing], y[standing], rng.select(standing.cpu()), task)
        judged[standing] = found.to(judged.dtype)
    logits = _logits(classifier, judged)  # the check is ours, not part of the attack's cost
    success, distance = verify(attack, logits, judged, x, y)
    # an attack's image that leaves the ball is not a finding: it is replaced by the original
    outside = ~attack.threat.contains(judged, x) & (distance.isinf() | isinstance(attack, FixedBudget)) & right
    if outside.any():
        judged = torch.where(outside.view(-1, 1, 1, 1), x, judged)
        logits = torch.where(outside[:, None], clean, logits)
    rows = _rows(ids, y.cpu(), logits)
    rows["success"] = success.cpu().numpy()
    rows["correct"] = ~success.cpu().numpy()
    rows["quantised"] = (success & _survives_rounding(classifier, attack.threat, judged, x, y)).cpu().numpy()
    rows["distance"] = distance.cpu().numpy()
    if proven.any():
        rows["certificate"] = ["verified" if sure else None for sure in proven.tolist()]
        rows["radius"] = np.where(proven.cpu().numpy(), attack.threat.radius, np.nan)
    rows["forward"], rows["backward"] = meter.forwards.numpy(), meter.backwards.numpy()
    rows["queries"] = np.where(meter.backwards.numpy() == 0, meter.forwards.numpy(), 0)
    return rows, judged.cpu()


def verify(attack: Attack, logits: Tensor, judged: Tensor, origin: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Success [N] and distance [N] of attacked images, from what can be seen outside the attack.

    Misclassified originals succeed at distance 0; failures have distance inf. A smallest-distance attack succeeds
    with any misclassified image in the box, or within eps if the threat model has one.
    """
    threat = attack.threat
    wrong = fooled(logits, labels)
    distance = threat.distance(judged, origin)
    if isinstance(attack, SmallestDistance):
        boxed = ThreatModel(norm=threat.norm).contains(judged, origin)
        found = wrong & boxed
        distance = torch.where(found, distance, torch.inf)
        return found & (threat.contains(judged, origin)), distance
    found = wrong & threat.contains(judged, origin)
    return found, torch.where(found, distance, torch.inf)


def _searched(attack: Attack, meter: Metered, x: Tensor, y: Tensor, rng: Randomness, task: _Task) -> Tensor:
    """What the attack finds, on the faster copy where there is one; what fooled the copy alone is attacked again."""
    if task.search is None:
        return _attack(attack, meter, x, y, rng)
    found = _attack(attack, meter.on(task.search), x, y, rng)
    copied, own = fooled(_logits(task.search, found), y), fooled(_logits(meter.inner, found), y)
    again = copied & ~own
    if again.any():
        found[again] = _attack(attack, meter.select(again), x[again], y[again], rng.select(again.cpu()))
    return found


def _attack(attack: Attack, classifier: Classifier, x: Tensor, y: Tensor, rng: Randomness) -> Tensor:
    if isinstance(attack, SmallestDistance):
        images = attack.minimise(classifier, x, y, rng)
    elif isinstance(attack, FixedBudget):
        images = attack.perturb(classifier, x, y, rng)
    else:
        raise TypeError(f"{attack.name} must be a FixedBudget or a SmallestDistance attack")
    if images.shape != x.shape:
        raise ValueError(f"{attack.name} returned {tuple(images.shape)} for images {tuple(x.shape)}")
    return torch.where(images.isfinite(), images, x).detach()


def _survives_rounding(classifier: Classifier, threat: ThreatModel, judged: Tensor, x: Tensor, y: Tensor) -> Tensor:
    rounded = threat.round_inside(judged, x)
    return fooled(_logits(classifier, rounded), y) & threat.contains(rounded, x)


def _rows(ids: Tensor, labels: Tensor, logits: Tensor) -> pd.DataFrame:
    prediction = logits.argmax(1).cpu()
    return pd.DataFrame(
        {
            "sample": ids.cpu().numpy(),
            "label": labels.cpu().numpy(),
            "prediction": prediction.numpy(),
            "correct": (prediction == labels.cpu()).numpy(),
            "logits": list(logits.float().cpu().numpy()),
        }
    )


@torch.no_grad()
def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    logits = classifier(images).detach()
    if logits.dim() != 2:
        raise ValueError(f"a classifier returns logits [N,K], this one returned shape {tuple(logits.shape)}")
    if not logits.isfinite().all():
        bad = int((~logits.isfinite()).any(1).sum())
        raise ValueError(f"the classifier returned NaN or infinite logits for {bad} of {len(images)} images")
    return logits


def _check_inputs(classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(f"images must be float [N,C,H,W], got {images.dtype} {tuple(images.shape)}")
    if not len(images) == len(labels) == len(ids):
        raise ValueError(f"{len(images)} images, {len(labels)} labels and {len(ids)} ids do not match")
    if len(ids.unique()) != len(ids):
        raise ValueError("sample ids must be unique: they key the randomness and the ledger")
    _check_box(images, "the images")
    if len(labels) == 0:
        return
    classes = classifier.num_classes or _logits(classifier, images[:1].to(classifier.device, classifier.dtype)).shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the classifier has {classes} classes "
            f"(0 to {classes - 1})"
        )


def _check_box(images: Tensor, who: str) -> None:
    if len(images) and not images.isfinite().all():
        raise ValueError(f"{who}: pixels are NaN or infinite")
    if len(images) and (images.min() < -TOLERANCE or images.max() > 1 + TOLERANCE):
        raise ValueError(
            f"{who}: pixels run from {float(images.min()):.4g} to {float(images.max()):.4g}, outside [0,1]; divide "
            "8-bit images by 255 and leave normalisation to the classifier"
        )


def _peak_bytes(classifier: Classifier) -> int:
    if classifier.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(classifier.device))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
