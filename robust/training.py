"""The one training loop: an architecture, an objective and two splits in; the best and the last weights out.

Read `train` top to bottom. What varies between methods lives in the objective (`loss`, hooks, `selection`); which
samples stand in a batch and what the learning rate is are pure functions of the step, so a checkpoint is the weights,
the optimiser, the random generators, the objective's state and one number. A run that was killed and resumed ends
with the bytes of one that was not (CPU, equal thread count). Several processes may share a training: each runs this
loop on its part of every batch (`robust.ranks`), and rank 0 writes.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust.batches import Batches
from robust.checkpoint import Weights, load_checkpoint, load_weights, save_checkpoint, save_weights, weights_of
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.datasets.labels import with_label_noise
from robust.models.model import Model
from robust.numerics import Passes, own_numerics, random_state, set_random_state
from robust.objectives.objective import Batch, Diverged, Objective, State
from robust.optimisation import learning_rate, make_optimizer
from robust.progress import Listener, Progress, silent
from robust.randomness import Randomness
from robust.ranks import ALONE, Ranks
from robust.trained import Interrupted, Trained, TrainingError

__all__ = ["Interrupted", "Trained", "TrainingError", "load_weights", "save_weights", "train", "weights_of"]

log = logging.getLogger("robust.training")

CHECKPOINT = "checkpoint.pt"
AUTOCAST = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def train(
    model: Model | Classifier,
    objective: Objective,
    train_set: Dataset,
    select_set: Dataset,
    *,
    seed: int = 0,
    folder: Path | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    checkpoint_steps: int | None = None,
    checkpoint_seconds: float | None = 60.0,
    listener: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train, or go on with a training that was interrupted.

    Args:
        model: an architecture, initialised by `seed`; or a classifier to train further, in place.
        objective: what is minimised; `objective.training` holds the optimiser's settings.
        train_set, select_set: what is fitted, and what chooses the checkpoint.
        seed: keys initialisation, order, augmentation and every other draw.
        folder: where `checkpoint.pt` is written and found again; None trains without a net.
        device: cuda where there is one, else cpu.
        threads: torch's threads within an operation, for the time of this call. The count changes bits.
        checkpoint_steps, checkpoint_seconds: a checkpoint at least this often; None switches that clock off.
        listener: told the progress about once a second and after each epoch.
        stop: asked after each step.
        ranks: this process's place among those that share the training; all call `train` with the same arguments.

    Raises:
        ValueError: if these ranks cannot do this training; the message names the setting.
        TrainingError: if a loss or gradient is not finite, or the objective's guard fires, and `training.restarts`
            are used up; the last good checkpoint stays.
        Interrupted: if `stop` returned True.
        CheckpointError: if the folder's checkpoint is damaged or belongs to another training.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with own_numerics(seed, where, threads):
        run = _Run(model, objective, train_set, seed, where, ranks)
        identity = _identity(model, run.classifier, objective, train_set, select_set, seed, where)
        path = None if folder is None else Path(folder) / CHECKPOINT
        if path is not None and path.exists():
            run.restore(load_checkpoint(path, identity, where))
        clock = _Clock(run, listener, checkpoint_steps, checkpoint_seconds)
        while run.step < run.batches.total:
            try:
                terms = _optimise(run, run.batches.batch(run.step))
            except Diverged as diagnosis:
                run.go_back(diagnosis)
                continue
            run.step += 1
            if run.step % run.batches.per_epoch == 0:
                _finish_epoch(run, select_set, seed)
            clock.tell(run, terms)
            finished = run.step == run.batches.total
            stopping, due = ranks.any(stop(), clock.checkpoint_due(run))
            if path is not None and (finished or stopping or due):
                state = run.snapshot()  # by every rank: their passes are added up
                if ranks.first:
                    save_checkpoint(state, identity, path)
            if stopping and not finished:
                kept = f"saved in {path}" if path else "not saved: no folder was given"
                raise Interrupted(f"stopped after step {run.step} of {run.batches.total}; {kept}")
        return run.result()


class _Run:
    """Everything that changes during a training, and how it goes into a checkpoint and comes out."""

    def __init__(
        self,
        model: Model | Classifier,
        objective: Objective,
        train_set: Dataset,
        seed: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        training = objective.training
        train_set = fitted_samples(objective, train_set, seed)
        built = model if isinstance(model, Classifier) else model.classifier(train_set.inputs())
        self.train_set, self.ranks = train_set, ranks
        self.classifier, self.objective, self.device = ranks.prepared(built.to(device)), objective, device
        size, epochs, augment = training.batch_size, training.epochs, training.augment
        self.batches = Batches(train_set, size, epochs, seed, augment, device, built.dtype, ranks)
        ranks.check(objective, self.batches.batch_size)
        self.optimizer = make_optimizer(built, training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "16")
        self.state: State = objective.start(built, self.batches.batch(0).images, seed)
        objective.before_training(self.state, train_set)
        self.step = 0
        self.sums: dict[str, Tensor] = {}  # of the terms in this epoch
        self.history: list[dict[str, float]] = []
        self.best, self.best_score, self.best_epoch = weights_of(built), -1.0, 0
        self.snapshots: dict[int, Weights] = {}
        self.restarts = 0
        self.passes = Passes(built)
        self.earlier, self.started = 0.0, time.perf_counter()
        if training.compile:
            built.module.compile()
        self.good: dict[str, Any] | None = None
        if training.restarts:
            self.mark_good()

    def mark_good(self) -> None:
        """Remember this state as the one to go back to."""
        self.good = copy.deepcopy(self._state())

    def go_back(self, diagnosis: Diverged) -> None:
        """After a divergence: the last good epoch again, with other draws and perhaps a lower learning rate.

        Raises:
            TrainingError: if no restart is left.
        """
        allowed = self.objective.training.restarts
        if self.restarts >= allowed or self.good is None:
            tried = f" after {self.restarts} restarts" if self.restarts else ""
            raise TrainingError(f"{diagnosis}{tried}") from diagnosis
        log.warning("restart %d of %d: %s", self.restarts + 1, allowed, diagnosis)
        restarts, good = self.restarts + 1, self.good
        self._load(copy.deepcopy(good))
        self.restarts = self.batches.attempt = restarts

    @property
    def seconds(self) -> float:
        """Wall time of this session and of those before it."""
        return self.earlier + time.perf_counter() - self.started

    def snapshot(self) -> dict[str, Any]:
        """The whole state, as a checkpoint stores it.

        Raises:
            TrainingError: if a weight is not finite, so that a checkpoint is always a good one.
        """
        if not all(value.isfinite().all() for value in self.classifier.module.state_dict().values()):
            raise TrainingError(f"a weight is NaN or infinite after step {self.step}; lower training.lr")
        return self._state() | {
            "passes": self.ranks.total(self.passes.forward, self.passes.backward),
            "seconds": self.seconds,
            "restarts": self.restarts,
            "good": self.good,
        }

    def _state(self) -> dict[str, Any]:
        """What a step depends on and what it has left behind."""
        return {
            "weights": self.classifier.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": self.state,
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "best": {"weights": self.best, "score": self.best_score, "epoch": self.best_epoch},
            "snapshots": self.snapshots,
            "random": random_state(self.device),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where `snapshot` was taken."""
        self._load(saved)
        self.passes.forward, self.passes.backward = saved["passes"] if self.ranks.first else (0, 0)
        self.restarts = self.batches.attempt = saved["restarts"]
        self.good = saved["good"]
        self.earlier, self.started = saved["seconds"], time.perf_counter()

    def _load(self, saved: dict[str, Any]) -> None:
        self.classifier.module.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.state, self.step, self.sums, self.history = (saved[k] for k in ("state", "step", "sums", "history"))
        best = saved["best"]
        self.best, self.best_score, self.best_epoch = best["weights"], best["score"], best["epoch"]
        self.snapshots = saved["snapshots"]
        set_random_state(saved["random"], self.device)

    def result(self) -> Trained:
        """The end of the run; the classifier is left with its best weights."""
        self.passes.remove()
        forward, backward = self.ranks.total(self.passes.forward, self.passes.backward)
        last, seconds = weights_of(self.classifier), self.seconds
        self.classifier.module.load_state_dict(self.best)
        return Trained(
            self.classifier.eval(),
            self.best,
            last,
            self.best_epoch,
            self.history,
            forward,
            backward,
            seconds,
            self.snapshots,
            self.restarts,
        )


def fitted_samples(objective: Objective, train_set: Dataset, seed: int) -> Dataset:
    """The samples that `training` has fitted: the first `samples`, with `label_noise`."""
    training = objective.training
    if training.samples is not None:
        train_set = train_set.subset(slice(0, training.samples))
    return with_label_noise(train_set, training.label_noise, seed) if training.label_noise else train_set


def _optimise(run: _Run, batch: Batch) -> dict[str, Tensor]:
    """One optimiser step; returns the loss, its terms and the gradient's norm."""
    training, parameters = run.objective.training, run.optimizer.param_groups[0]["params"]
    rate = learning_rate(training, batch.step, run.batches.total, run.batches.per_epoch)
    rate *= training.restart_lr**run.restarts
    run.optimizer.param_groups[0]["lr"] = rate
    run.classifier.train()
    autocast = torch.autocast(run.device.type, AUTOCAST[training.precision], enabled=training.precision != "32")
    with run.ranks.together(), autocast:
        loss = run.objective.loss(run.classifier, batch, run.state)
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss.total).backward()
    share = len(batch.labels) / run.batches.batch_size  # of the batch, what this rank has: all of it, if it is alone
    run.ranks.average((parameter.grad for parameter in parameters if parameter.grad is not None), share)
    run.scaler.unscale_(run.optimizer)
    run.objective.before_step(run.classifier, run.state)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if run.scaler.is_enabled():  # it leaves a step with an infinite gradient out, and lowers its scale
        norm = norm.nan_to_num(0.0, 0.0, 0.0)
    terms = run.ranks.mean({"loss": loss.total.detach(), **loss.terms}, share) | {"gradient_norm": norm}
    if not (terms["loss"] + norm).isfinite():
        raise Diverged(_diagnosis(run, batch, rate, terms))
    if training.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, training.clip_norm, norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.objective.after_step(run.classifier, run.state)
    for name, value in terms.items():
        run.sums[name] = run.sums.get(name, 0.0) + value.double()
    return terms


def _finish_epoch(run: _Run, select_set: Dataset, seed: int) -> None:
    """Means of the epoch into the history; a look at select where one is due; the best weights kept."""
    training, epoch = run.objective.training, run.step // run.batches.per_epoch
    own = run.objective.after_epoch(run.classifier, run.state, run.train_set)
    row = {"epoch": float(epoch), "learning_rate": float(run.optimizer.param_groups[0]["lr"])}
    row |= {name: float(value) / run.batches.per_epoch for name, value in run.sums.items()} | own
    run.sums = {}
    if training.restarts:
        row["restarts"] = float(run.restarts)
    if epoch in training.snapshots:
        run.snapshots[epoch] = weights_of(run.classifier)
    if epoch % training.select_every == 0 or epoch == training.epochs:
        accuracy, score = _select(run, select_set, seed)
        row |= {"select_accuracy": accuracy, "select_score": score}
        if score >= run.best_score:  # the latest of equals: its learning rate is the lowest
            run.best, run.best_score, run.best_epoch = weights_of(run.classifier), score, epoch
    run.history.append(row)
    if training.restarts:
        run.mark_good()


def _select(run: _Run, select_set: Dataset, seed: int) -> tuple[float, float]:
    """Clean accuracy on select, and the share that the objective's own `selection` counts as right."""
    looked_at = min(len(select_set), run.objective.training.select_samples)
    part, clean, right = run.ranks.part(looked_at), 0, 0
    with run.classifier.frozen():
        for start in range(part.start, part.stop, 250):
            images, labels, ids = select_set.batch(slice(start, min(start + 250, part.stop)))
            x, y = images.to(run.device, run.classifier.dtype), labels.to(run.device)
            with torch.no_grad():
                clean += int((run.classifier(x).argmax(1) == y).sum())
            right += int(run.objective.selection(run.classifier, x, y, Randomness.of(seed, ids, "select")).sum())
    clean, right = run.ranks.total(clean, right)
    return clean / looked_at, right / looked_at


@dataclass
class _Clock:
    """When to tell the listener and when to write a checkpoint."""

    run: _Run
    listener: Listener
    every_steps: int | None
    every_seconds: float | None
    first_step: int = field(init=False)
    told: float = 0.0
    saved: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.first_step = self.run.step

    def tell(self, run: _Run, terms: dict[str, Tensor]) -> None:
        """Report about once a second, and after each epoch; reading the terms waits for the device."""
        now = time.perf_counter()
        if now - self.told < 1.0 and run.step % run.batches.per_epoch:
            return
        self.told = now
        pace = (run.step - self.first_step) / max(1e-9, now - run.started)
        shown = {name: float(value) for name, value in terms.items()} | {
            "epoch": run.step / run.batches.per_epoch,
            "learning_rate": float(run.optimizer.param_groups[0]["lr"]),
        }
        if run.history and run.step % run.batches.per_epoch == 0:
            shown |= {name: value for name, value in run.history[-1].items() if name.startswith("select")}
        eta = (run.batches.total - run.step) / max(1e-9, pace)
        self.listener(Progress(run.step, run.batches.total, run.seconds, pace * run.batches.batch_size, eta, shown))

    def checkpoint_due(self, run: _Run) -> bool:
        """Whether one of the two clocks has run out; starts the second one anew."""
        now = time.perf_counter()
        by_steps = self.every_steps is not None and run.step % self.every_steps == 0
        by_time = self.every_seconds is not None and now - self.saved >= self.every_seconds
        if by_steps or by_time:
            self.saved = now
        return by_steps or by_time


def _identity(
    model: Model | Classifier,
    classifier: Classifier,
    objective: Objective,
    train_set: Dataset,
    select_set: Dataset,
    seed: int,
    device: torch.device,
) -> dict[str, str]:
    """What must be equal for a checkpoint to belong to this training."""
    kind = model.digest() if isinstance(model, Model) else type(classifier.module).__qualname__
    return {
        "model": kind,
        "objective": objective.digest(),
        "train split": train_set.digest,
        "select split": select_set.digest,
        "seed": str(seed),
        "device": device.type,
    }


def _diagnosis(run: _Run, batch: Batch, rate: float, terms: dict[str, Tensor]) -> str:
    """What a person needs to see when a loss is not finite."""
    largest = max((float(p.detach().abs().max()) for p in run.classifier.parameters() if p.numel()), default=0.0)
    shown = ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
    return (
        f"the loss or its gradient is not finite in epoch {batch.epoch + 1}, step {batch.step + 1} of "
        f"{run.batches.total}: {shown}; learning rate {rate:.4g}, largest weight {largest:.4g}. Lower training.lr, "
        "set training.clip_norm, or lengthen training.warmup; the last good checkpoint is kept"
    )
