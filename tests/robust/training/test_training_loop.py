import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust.batches import augmented
from robust.checkpoint import CheckpointError
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.datasets.digits import Digits
from robust.models.mlp import MLP
from robust.models.small_cnn import SmallCNN
from robust.numerics import Passes
from robust.objectives.objective import Batch, Loss, Objective, State, Training
from robust.objectives.pgd_at import PGDAT
from robust.objectives.standard import Standard
from robust.optimisation import learning_rate
from robust.progress import Progress
from robust.randomness import Randomness
from robust.training import Interrupted, Trained, TrainingError, train

SMALL = MLP(hidden=(32,))


@pytest.fixture(scope="module")
def splits() -> tuple[Dataset, Dataset]:
    spec = Digits(train=300, select=100)
    return spec.load("train"), spec.load("select")


def fit(splits, objective=None, model=SMALL, **given) -> Trained:
    objective = objective or Standard(training=Training(epochs=3, batch_size=50, lr=5e-3))
    return train(model, objective, *splits, device="cpu", threads=1, **given)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class Spiked(Standard):
    """Standard training whose loss becomes NaN at one step."""

    at: int = 8

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        found = super().loss(classifier, batch, state)
        return Loss(found.total * math.nan, found.terms) if batch.step == self.at else found


class Counting(Standard):
    """Standard training with random draws from torch's generator and a state of its own."""

    def start(self, classifier: Classifier, images: torch.Tensor, seed: int) -> State:
        return {"steps": 0, "mean": torch.zeros(images.shape[1:])}

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        state["mean"] = 0.9 * state["mean"] + 0.1 * batch.images.mean(0)
        noisy = batch.images + 0.1 * torch.randn(batch.images.shape) + 0.1 * state["mean"]
        return Loss(F.cross_entropy(classifier(noisy), batch.labels), {"steps": torch.tensor(float(state["steps"]))})

    def after_step(self, classifier: Classifier, state: State) -> None:
        state["steps"] += 1


def test_training_learns_digits_and_keeps_a_history(splits):
    objective = Standard(training=Training(epochs=12, batch_size=50, lr=5e-3))
    trained = fit(splits, objective)
    table = pd.DataFrame(trained.history)
    assert table["select_accuracy"].max() > 0.85
    assert list(table["epoch"]) == list(range(1, 13))
    assert table["loss"].iloc[-1] < 0.3 * table["loss"].iloc[0]
    assert np.isfinite(table.to_numpy()).all()


def test_the_best_checkpoint_is_the_latest_with_the_highest_score(splits):
    trained = fit(splits)
    scores = [row["select_score"] for row in trained.history]
    assert trained.best_epoch == max(epoch for epoch, score in enumerate(scores, 1) if score == max(scores))
    images, labels, _ = splits[1].batch(slice(None))
    assert not trained.classifier.training
    accuracy = float((trained.classifier(images).argmax(1) == labels).float().mean())
    assert accuracy == pytest.approx(max(scores), abs=1e-6)


def test_one_seed_gives_one_result_and_leaves_the_global_generator_alone(splits):
    torch.manual_seed(3)
    first = fit(splits, Counting(training=Training(epochs=2, batch_size=50)), seed=4)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    torch.manual_seed(99)
    second = fit(splits, Counting(training=Training(epochs=2, batch_size=50)), seed=4)
    other = fit(splits, Counting(training=Training(epochs=2, batch_size=50)), seed=5)
    assert same(first.last, second.last)
    assert first.history == second.history
    assert not same(first.last, other.last)


@pytest.mark.parametrize(("optimizer", "stop_at"), [("sgd", 1), ("adam", 5), ("adamw", 6), ("adam", 7), ("sgd", 11)])
def test_stopped_and_resumed_equals_uninterrupted(splits, tmp_path, optimizer, stop_at):
    training = Training(
        epochs=2, batch_size=50, optimizer=optimizer, lr=1e-2, weight_decay=1e-4, clip_norm=1.0, augment="crop-flip"
    )
    objective = Counting(training=training)
    whole = fit(splits, objective)
    asked = iter(range(1, 10_000))
    with pytest.raises(Interrupted, match=f"step {stop_at} of 12"):
        fit(splits, objective, folder=tmp_path, stop=lambda: next(asked) == stop_at)
    resumed = fit(splits, objective, folder=tmp_path)
    assert same(whole.last, resumed.last)
    assert same(whole.best, resumed.best)
    assert whole.history == resumed.history
    assert (whole.forward, whole.backward, whole.best_epoch) == (resumed.forward, resumed.backward, resumed.best_epoch)


def test_a_finished_training_is_returned_from_its_checkpoint(splits, tmp_path):
    first = fit(splits, folder=tmp_path)
    steps = []
    second = fit(splits, folder=tmp_path, listener=steps.append)
    assert steps == []
    assert same(first.best, second.best)
    assert first.history == second.history


def test_another_trainings_checkpoint_is_refused(splits, tmp_path):
    fit(splits, folder=tmp_path)
    with pytest.raises(CheckpointError, match="another training \\(another model, seed\\)"):
        fit(splits, folder=tmp_path, model=MLP(hidden=(8,)), seed=1)


def test_interrupted_without_a_folder_says_that_nothing_was_saved(splits):
    with pytest.raises(Interrupted, match="not saved"):
        fit(splits, stop=lambda: True)


def test_a_loss_that_is_not_finite_stops_with_a_diagnosis_and_keeps_the_checkpoint(splits, tmp_path):
    objective = Spiked(training=Training(epochs=3, batch_size=50))
    with pytest.raises(TrainingError) as caught:
        fit(splits, objective, folder=tmp_path, checkpoint_steps=3)
    message = str(caught.value)
    for part in ("epoch 2", "step 9 of 18", "loss nan", "accuracy", "gradient_norm", "learning rate", "largest weight"):
        assert part in message
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 6
    assert all(value.isfinite().all() for value in saved["weights"].values())


def test_exploding_weights_never_reach_a_checkpoint(splits, tmp_path):
    objective = Standard(training=Training(epochs=3, batch_size=50, optimizer="sgd", lr=1e20, schedule="constant"))
    with pytest.raises(TrainingError, match=r"[Ll]ower training\.lr"):
        fit(splits, objective, folder=tmp_path, checkpoint_steps=1)
    if (tmp_path / "checkpoint.pt").exists():
        saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert all(value.isfinite().all() for value in saved["weights"].values())


def test_progress_is_told_with_terms_after_each_epoch(splits):
    told: list[Progress] = []
    fit(splits, listener=told.append)
    assert [p.step for p in told if p.step % 6 == 0] == [6, 12, 18]
    last = told[-1]
    assert last.total == 18
    assert last.eta == 0
    assert last.images_per_second > 0
    assert {"loss", "accuracy", "epoch", "learning_rate", "select_score"} <= last.terms.keys()


def test_passes_are_counted(splits):
    trained = fit(splits, PGDAT(eps="1/10", steps=3, training=Training(epochs=2, batch_size=50, select_samples=40)))
    images = 300 * 2
    assert trained.backward == images * 4 + 40 * 2 * 3
    assert trained.forward == images * 4 + 40 * 2 * (3 + 2)


def test_passes_count_nothing_after_removal():
    classifier = Classifier(nn.Linear(2, 2))
    passes = Passes(classifier)
    passes.remove()
    classifier.module(torch.zeros(3, 2))
    assert passes.forward == 0


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_given_classifier_in_any_precision_is_trained_further(splits, precision):
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    training = Training(epochs=8, batch_size=50, lr=3e-2, precision=precision)
    trained = fit(splits, Standard(training=training), model=classifier)
    assert trained.classifier is classifier
    assert trained.history[-1]["select_accuracy"] > 0.7
    assert trained.last["1.weight"].dtype == torch.float32


def test_training_in_float64_stays_in_float64(splits):
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).double()
    trained = fit(splits, PGDAT(eps="1/10", steps=2, training=Training(epochs=1, batch_size=50)), model=classifier)
    assert trained.last["1.weight"].dtype == torch.float64


def test_select_is_looked_at_as_seldom_as_asked_and_at_the_end(splits):
    trained = fit(splits, Standard(training=Training(epochs=5, batch_size=100, select_every=3)))
    assert ["select_score" in row for row in trained.history] == [False, False, True, False, True]


def test_one_step_of_sgd_is_the_formula(splits):
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).double()
    before = classifier.module[1].weight.detach().clone()
    images, labels, _ = splits[0].batch(slice(None))
    gradient = torch.autograd.grad(F.cross_entropy(classifier(images.double()), labels), classifier.module[1].weight)[0]
    training = Training(epochs=1, batch_size=300, optimizer="sgd", momentum=0, lr=0.5, schedule="constant")
    trained = fit(splits, Standard(training=training), model=classifier)
    torch.testing.assert_close(trained.last["1.weight"], before - 0.5 * gradient)


def test_the_state_hooks_are_called_in_order(splits):
    calls: list[str] = []

    class Traced(Standard):
        """Writes down which hook is called."""

        def before_step(self, classifier: Classifier, state: State) -> None:
            calls.append("before")

        def after_step(self, classifier: Classifier, state: State) -> None:
            calls.append("after")

        def after_epoch(self, classifier: Classifier, state: State, train_set: object) -> dict[str, float]:
            calls.append("epoch")
            return {}

    fit(splits, Traced(training=Training(epochs=2, batch_size=150)))
    assert calls == ["before", "after", "before", "after", "epoch"] * 2


def test_batchnorm_networks_train_and_their_averages_are_restored(splits, tmp_path):
    def network() -> Classifier:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        return Classifier(layers)

    objective: Objective = PGDAT(eps="1/20", steps=2, training=Training(epochs=2, batch_size=64))
    whole = fit(splits, objective, model=network())
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        fit(splits, objective, model=network(), folder=tmp_path, stop=lambda: next(asked) == 4)
    resumed = fit(splits, objective, model=network(), folder=tmp_path)
    assert whole.last["1.num_batches_tracked"] == 8
    assert same(whole.last, resumed.last)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "multistep"])
def test_the_learning_rate_stays_positive_and_at_most_the_peak(schedule):
    training = Training(schedule=schedule, lr=0.1, milestones=(2, 4), warmup=0.2)
    rates = [learning_rate(training, step, 50, 10) for step in range(50)]
    assert 0 < min(rates) <= max(rates) <= 0.1 + 1e-12
    assert rates[:10] == sorted(rates[:10])


def test_learning_rates_at_known_steps():
    assert learning_rate(Training(schedule="constant", lr=0.1), 7, 10, 5) == 0.1
    assert learning_rate(Training(schedule="cosine", lr=0.1), 5, 10, 5) == pytest.approx(0.05)
    twice = Training(schedule="cosine", lr=0.1, cycles=2)
    assert [learning_rate(twice, step, 8, 4) for step in range(4, 8)] == [
        learning_rate(twice, s, 8, 4) for s in range(4)
    ]
    assert learning_rate(twice, 4, 8, 4) == pytest.approx(0.1)
    assert learning_rate(twice, 6, 8, 4) == pytest.approx(0.05)
    assert learning_rate(Training(schedule="cosine", lr=0.1, warmup=0.5), 0, 10, 5) == pytest.approx(0.1 / 6)
    assert learning_rate(Training(schedule="one-cycle", lr=0.1, warmup=0.5), 5, 10, 5) == pytest.approx(0.1)
    assert learning_rate(Training(schedule="one-cycle", lr=0.1, warmup=0.5), 9, 10, 5) == pytest.approx(0.02)
    multistep = Training(schedule="multistep", lr=0.1, milestones=(1, 2))
    assert [learning_rate(multistep, s, 15, 5) for s in (0, 5, 14)] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.parametrize("augment", ["crop", "crop-flip"])
def test_augmentation_shifts_each_sample_by_its_own_draws_whatever_the_batch(augment):
    images = torch.rand(6, 3, 16, 12)
    rng = Randomness.of(0, range(6), "augment")
    whole = augmented(images, augment, rng)
    alone = torch.cat([augmented(images[[i]], augment, rng.select([i])) for i in range(6)])
    assert torch.equal(whole, alone)
    assert whole.shape == images.shape
    assert not torch.equal(whole, images)
    shift = rng.fork("shift").integers(3, (2,)) - 1
    down, right = (int(value) for value in shift[0])
    expected = F.pad(images[0], [1] * 4)[:, 1 + down : 17 + down, 1 + right : 13 + right]
    assert torch.equal(whole[0], expected) or (augment == "crop-flip" and torch.equal(whole[0], expected.flip(2)))


def test_small_cnn_learns_too(splits):
    trained = fit(splits, Standard(training=Training(epochs=10, batch_size=50, lr=5e-3)), model=SmallCNN(width=8))
    assert max(row["select_accuracy"] for row in trained.history) > 0.85


def test_trainings_in_threads_of_one_process_do_not_touch_each_other(splits):
    from concurrent.futures import ThreadPoolExecutor

    def one(seed: int):
        return train(MLP(hidden=(8,)), Standard(training=Training(epochs=1)), *splits, seed=seed).last

    alone = [one(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(one, (0, 1)))
    for first, second in zip(alone, together):
        assert all(torch.equal(first[name], second[name]) for name in first)
