"""JEM on digits: its terms, its buffer and its guard; killed, diverged and resumed trainings come through."""

from __future__ import annotations

import math

import pytest
import torch

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.energy import log_density
from robust.models.energy_cnn import EnergyCNN
from robust.models.wrn import WideResNet
from robust.objectives.jem import JEM
from robust.objectives.objective import Batch, Diverged, Loss, State, Training
from robust.objectives.replay import class_gaussians, fresh
from robust.objectives.sharpness import climb, return_to_rest
from robust.randomness import Randomness
from robust.training import Interrupted, Trained, TrainingError, train

TINY = EnergyCNN(channels=(8, 16))
SPEC = Digits(train=300, select=100)
SPLITS = SPEC.load("train"), SPEC.load("select")


def jem(epochs: int = 2, restarts: int = 0, lr: float = 3e-3, **given) -> JEM:
    training = Training(epochs=epochs, batch_size=30, lr=lr, restarts=restarts)
    return JEM(**{"training": training, "steps": 3, "buffer": 60, **given})


def fit(objective: JEM, **given) -> Trained:
    return train(given.pop("model", TINY), objective, *SPLITS, device="cpu", threads=1, **given)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def a_batch(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    ids = torch.arange(len(images))
    return Batch(images, labels, ids, Randomness.of(0, ids, "train", 0), 0.0, 0, 0, lambda _: images.flip(0))


class Exploding(JEM):
    """JEM whose loss is multiplied at some steps; each step explodes once for every attempt given."""

    at: tuple[int, ...] = (13,)
    attempts: int = 1

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        attempt = int(batch.rng.purpose[2]) if len(batch.rng.purpose) > 2 else 0
        if batch.step in self.at and attempt < self.attempts:
            self._guard(Loss(torch.tensor(1e9), {"gap": torch.tensor(3.0)}), batch)
        return super().loss(classifier, batch, state)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return fit(jem(epochs=12, lr=1e-2, buffer=100, steps=5, conditional=True))


def test_training_learns_and_the_chains_follow_the_data(trained):
    last = trained.history[-1]
    assert last["select_accuracy"] > 0.7
    assert {"f_data", "f_samples", "gap", "sampler_gradient", "cross_entropy", "accuracy"} <= last.keys()
    assert last["gap"] == pytest.approx(last["f_data"] - last["f_samples"], abs=1e-4)
    assert abs(last["gap"]) < 10
    assert last["sampler_gradient"] > 0.05
    images = SPLITS[1].batch(slice(None))[0]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # the density is of digits: noise lies below
        assert log_density(trained.classifier(images)).mean() > log_density(trained.classifier(noise)).mean() + 0.3


def test_the_loss_is_the_formula():
    classifier = TINY.classifier(SPLITS[0].inputs()).double()
    objective = jem(input_sigma=0.0, density=0.7, classification=0.3, penalty=0.2, sigma=0.0)
    images, labels, _ = SPLITS[0].batch(slice(0, 30))
    state = objective.start(classifier, images.double(), 0)
    objective.before_training(state, SPLITS[0])
    before = state["buffer"].clone()
    found = objective.loss(classifier, a_batch(images.double(), labels), state)
    moved = (state["buffer"] != before).flatten(1).any(1)
    assert moved.sum() == 30
    with torch.no_grad():
        real = log_density(classifier(images.double().flip(0)))
        sampled = log_density(classifier(state["buffer"][moved]))
        entropy = torch.nn.functional.cross_entropy(classifier(images.double()), labels)
    density = sampled.mean() - real.mean()
    squares = real.square().mean() + sampled.square().mean()
    torch.testing.assert_close(found.total.detach(), 0.7 * density + 0.2 * squares + 0.3 * entropy)
    assert float(found.terms["gap"]) == pytest.approx(-float(density))


def test_without_classification_the_labels_do_not_matter_and_the_last_epoch_is_kept():
    objective = jem(classification=0.0)
    trained = fit(objective)
    assert "cross_entropy" not in trained.history[-1]
    assert trained.best_epoch == 2
    assert same(trained.best, trained.last)


def test_without_density_no_chain_is_run():
    trained = fit(jem(density=0.0, epochs=1))
    assert trained.forward == 300 + 2 * 100  # and twice each image of select
    assert "gap" not in trained.history[-1]
    with pytest.raises(ValueError, match="nothing would be learned"):
        jem(density=0.0, classification=0.0)


def test_a_step_costs_its_langevin_steps_and_three_passes():
    trained = fit(jem(epochs=1, steps=4))
    assert trained.forward == 300 * (4 + 3) + 2 * 100
    assert trained.backward == 300 * (4 + 3)


@pytest.mark.parametrize("given", [{}, {"start_from": "class-gaussian", "conditional": True, "sharpness": 0.1}])
def test_killed_and_resumed_ends_with_the_bytes_of_one_that_was_not(tmp_path, given):
    objective = jem(restarts=1, **given)
    whole = fit(objective)
    asked = iter(range(1, 1000))
    with pytest.raises(Interrupted):
        fit(objective, folder=tmp_path, stop=lambda: next(asked) == 13)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["state"]["buffer"].shape == (60, 1, 8, 8)
    assert not torch.equal(saved["state"]["buffer"], saved["good"]["state"]["buffer"])
    assert "rest" not in saved["state"]
    resumed = fit(objective, folder=tmp_path)
    assert same(whole.last, resumed.last)
    assert whole.history == resumed.history


def test_a_divergence_goes_back_to_the_last_good_epoch_and_is_counted(tmp_path, caplog):
    training = Training(epochs=3, batch_size=30, lr=3e-3, restarts=3, restart_lr=0.5)
    objective = Exploding(training=training, steps=2, buffer=60, attempts=2)
    trained = fit(objective, folder=tmp_path)
    assert trained.restarts == 2
    assert [row["restarts"] for row in trained.history] == [0.0, 2.0, 2.0]
    assert len(trained.history) == 3
    assert [record.message[:12] for record in caplog.records] == ["restart 1 of", "restart 2 of"]
    calm = fit(objective.model_copy(update={"attempts": 0}))
    assert trained.history[0]["f_data"] == calm.history[0]["f_data"]  # the good epoch stands
    assert not same(trained.last, calm.last)  # the others were drawn anew


def test_killed_after_a_restart_still_ends_with_the_same_bytes(tmp_path):
    training = Training(epochs=2, batch_size=30, lr=3e-3, restarts=2)
    objective = Exploding(training=training, steps=2, buffer=60)
    whole = fit(objective)
    asked = iter(range(1, 1000))
    with pytest.raises(Interrupted):
        fit(objective, folder=tmp_path, stop=lambda: next(asked) == 16)  # 13 good steps, back to 10, then 3 more
    resumed = fit(objective, folder=tmp_path)
    assert whole.restarts == resumed.restarts == 1
    assert same(whole.last, resumed.last)
    assert whole.history == resumed.history


def test_when_no_restart_is_left_the_diagnosis_says_what_happened():
    with pytest.raises(TrainingError, match=r"jem: loss 1e\+09 .*gap 3 .*epoch 2, step 14.*after 1 restarts"):
        fit(Exploding(training=Training(epochs=2, batch_size=30, restarts=1), steps=2, buffer=60, attempts=9))


@pytest.mark.parametrize(("loss", "gap"), [(2e8, 0.0), (0.0, -2e3), (math.nan, 0.0), (0.0, math.inf)])
def test_the_guard_fires_beyond_its_bounds_and_for_nan(loss, gap):
    images, labels, _ = SPLITS[0].batch(slice(0, 2))
    bad = Loss(torch.tensor(loss), {"gap": torch.tensor(gap)})
    with pytest.raises(Diverged, match="jem: loss"):
        jem()._guard(bad, a_batch(images, labels))
    jem()._guard(Loss(torch.tensor(9e7), {"gap": torch.tensor(900.0)}), a_batch(images, labels))


def test_a_learning_rate_far_too_high_for_the_sampler_ends_in_the_guard():
    training = Training(epochs=30, batch_size=30, lr=0.1, schedule="constant")
    with pytest.raises(TrainingError, match="jem: loss"):
        fit(jem(training=training, penalty=0.0, input_sigma=0.0))


def test_class_gaussians_have_the_mean_and_spread_of_their_class():
    train_set = SPLITS[0]
    found = class_gaussians(train_set, torch.zeros(1, dtype=torch.float64))
    assert found["means"].shape == (10, 64)
    zeros = train_set.batch(train_set.labels == 0)[0].flatten(1).double()
    torch.testing.assert_close(found["means"][0], zeros.mean(0))
    covariance = found["factors"][0].T @ found["factors"][0]
    torch.testing.assert_close(covariance, zeros.T.cov(correction=0), atol=1e-10, rtol=1e-6)
    state = {"buffer": torch.zeros(4, 1, 8, 8, dtype=torch.float64), **found}
    drawn = fresh(state, torch.zeros(500, dtype=torch.int64), torch.Generator().manual_seed(0), torch.Size((1, 8, 8)))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert float((drawn.flatten(1).mean(0) - zeros.mean(0)).abs().max()) < 0.1


def test_conditional_chains_climb_their_own_class(trained):
    objective = jem(conditional=True, steps=40, reinit=0.0)
    images, labels, _ = SPLITS[0].batch(slice(0, 30))
    state = objective.start(trained.classifier, images, 0)
    objective.before_training(state, SPLITS[0])
    before = state["buffer"].clone()
    objective.loss(trained.classifier, a_batch(images, labels), state)
    moved = (state["buffer"] != before).flatten(1).any(1)
    owners = torch.arange(60) % 10
    own = trained.classifier(state["buffer"][moved]).argmax(1) == owners[moved]
    assert own.float().mean() > 0.7


def test_reinit_of_one_begins_every_chain_anew_and_of_zero_none():
    classifier = TINY.classifier(SPLITS[0].inputs())
    images, labels, _ = SPLITS[0].batch(slice(0, 30))
    far = {}
    for reinit in (0.0, 1.0):
        objective = jem(reinit=reinit, steps=1, sigma=0.0)
        state = {"buffer": torch.full((60, 1, 8, 8), 0.5), "classes": 10}
        objective.loss(classifier, a_batch(images, labels), state)
        far[reinit] = float((state["buffer"] - 0.5).flatten(1).norm(dim=1).max())
    assert far[0.0] < 0.5 < far[1.0]


def test_sharpness_takes_the_gradient_uphill_and_puts_the_weights_back():
    classifier = TINY.classifier(SPLITS[0].inputs())
    images, labels, _ = SPLITS[0].batch(slice(0, 30))
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    state: State = {}
    rise = torch.nn.functional.cross_entropy(classifier(images), labels)
    climb(classifier, rise, 0.5, state)
    after = classifier.module.state_dict()
    distance = torch.stack([(after[name] - before[name]).norm() for name in before]).norm()
    assert float(distance) == pytest.approx(0.5, rel=1e-3)
    assert torch.nn.functional.cross_entropy(classifier(images), labels) > rise
    return_to_rest(classifier, state)
    assert same(dict(classifier.module.state_dict()), before)
    assert state == {}


def test_a_wide_residual_network_without_normalisation_trains():
    network = WideResNet(depth=10, widen=1, norm="none", activation="leaky-relu")
    trained = fit(jem(epochs=1, steps=1), model=network)
    assert math.isfinite(trained.history[0]["gap"])


def test_energy_cnn_scales_pixels_to_minus_one_and_one_and_names_images_it_cannot_halve():
    inputs = SPLITS[0].inputs()
    classifier = TINY.classifier(inputs)
    assert classifier.normalise(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)).flatten().tolist() == [-1.0, 1.0]
    leaky = EnergyCNN(channels=(4,), activation="leaky-relu").build(inputs)
    assert leaky[1].negative_slope == 0.2
    with pytest.raises(ValueError, match="cannot halve images of 8 x 8"):
        EnergyCNN(channels=(4, 4, 4, 4)).build(inputs)


def test_a_buffer_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="fewer chains"):
        jem(buffer=10)
