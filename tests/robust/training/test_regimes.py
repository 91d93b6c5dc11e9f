"""What `Training` says beyond the optimiser: fewer samples, wrong labels, snapshots, restarts after divergence."""

import numpy as np
import pytest
import torch

from robust.datasets.digits import Digits
from robust.datasets.labels import with_label_noise
from robust.models.mlp import MLP
from robust.objectives.objective import Batch, Diverged, Loss, State, Training
from robust.objectives.standard import Standard
from robust.training import Interrupted, TrainingError, train

DATA = Digits(train=200, select=50)


@pytest.fixture(scope="module")
def splits():
    return DATA.load("train"), DATA.load("select")


def fit(splits, objective, **settings):
    return train(MLP(hidden=(16,)), objective, *splits, device="cpu", threads=1, **settings)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


class Fragile(Standard):
    """Always diverges at step 5."""

    def loss(self, classifier, batch: Batch, state: State) -> Loss:
        if batch.step == 5:
            raise Diverged("the energy ran away")
        return super().loss(classifier, batch, state)


def test_label_noise_flips_the_named_share_and_a_larger_share_flips_the_same_and_more(splits):
    train_set = splits[0]
    few, many = (with_label_noise(train_set, share, seed=3) for share in (0.2, 0.4))
    flipped = [noisy.labels != train_set.labels for noisy in (few, many)]
    assert flipped[0].mean() == pytest.approx(0.2, abs=0.1)
    assert flipped[1].mean() == pytest.approx(0.4, abs=0.12)
    assert not (flipped[0] & ~flipped[1]).any()
    assert few.digest != train_set.digest
    half = with_label_noise(train_set.subset(slice(0, 100)), 0.2, seed=3)
    np.testing.assert_array_equal(half.labels, few.labels[:100])
    assert np.array_equal(with_label_noise(train_set, 0.0, 3).labels, train_set.labels)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_label_noise_outside_a_share_is_refused(splits, share):
    with pytest.raises(ValueError, match="label noise needs a share"):
        with_label_noise(splits[0], share, 0)


def test_training_on_fewer_samples_is_training_on_that_subset(splits):
    few = fit(splits, Standard(training=Training(epochs=2, samples=64, batch_size=32)))
    subset = (splits[0].subset(slice(0, 64)), splits[1])
    again = fit(subset, Standard(training=Training(epochs=2, batch_size=32)))
    assert few.forward == again.forward  # normalisation is of the samples that are fitted, so the weights agree too
    assert same(few.last, again.last)


def test_snapshots_are_the_weights_after_those_epochs_and_survive_an_interruption(splits, tmp_path):
    objective = Standard(training=Training(epochs=4, batch_size=50, snapshots=(1, 3)))
    whole = fit(splits, objective)
    one = fit(splits, Standard(training=Training(epochs=4, batch_size=50, snapshots=(1, 3, 4))))
    assert list(whole.snapshots) == [1, 3]
    assert not same(whole.snapshots[1], whole.snapshots[3])
    assert same(one.snapshots[4], one.last)
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        fit(splits, objective, folder=tmp_path, stop=lambda: next(asked) == 6)
    resumed = fit(splits, objective, folder=tmp_path)
    assert all(same(resumed.snapshots[epoch], whole.snapshots[epoch]) for epoch in (1, 3))


def test_a_divergence_without_restarts_ends_the_training_with_its_diagnosis(splits):
    with pytest.raises(TrainingError, match="the energy ran away"):
        fit(splits, Fragile(training=Training(epochs=3, batch_size=50)))


def test_a_divergence_goes_back_to_the_last_good_epoch_with_other_draws(splits, caplog):
    class Once(Standard):
        """Diverges at step 5 the first time it comes there."""

        def loss(self, classifier, batch, state):
            if batch.step == 5 and not tried:
                tried.append(batch.step)
                raise Diverged("the energy ran away")
            return super().loss(classifier, batch, state)

    tried: list[int] = []
    found = fit(splits, Once(training=Training(epochs=3, batch_size=50, restarts=2, restart_lr=0.5)))
    calm = fit(splits, Standard(training=Training(epochs=3, batch_size=50)))
    assert found.restarts == 1
    assert [row["restarts"] for row in found.history] == [0, 1, 1]
    assert found.history[0]["loss"] == calm.history[0]["loss"]  # the first epoch was good and is kept
    assert found.history[1]["loss"] != calm.history[1]["loss"]
    assert found.history[1]["learning_rate"] == pytest.approx(0.5 * calm.history[1]["learning_rate"])
    assert "restart 1 of 2: the energy ran away" in caplog.text


def test_restarts_run_out(splits):
    with pytest.raises(TrainingError, match="ran away after 2 restarts"):
        fit(splits, Fragile(training=Training(epochs=3, batch_size=50, restarts=2)))


def test_independent_batches_differ_by_purpose_and_step_and_repeat_themselves(splits):
    drawn = []

    class Watching(Standard):
        """Draws a second batch."""

        def loss(self, classifier, batch, state):
            drawn.append((batch.independent("density"), batch.independent("other"), batch.independent("density")))
            return super().loss(classifier, batch, state)

    fit(splits, Watching(training=Training(epochs=1, batch_size=50)))
    first, second = drawn[:2]
    assert first[0].shape == (50, 1, 8, 8)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])
