"""Early stop and streaming: one prefix for all evaluations, said aloud, and the same rows as without either."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.evaluation import evaluate
from robust.statistics import wilson
from robust.streaming import evaluate_dataset

ATTACK = PGD.model_validate({"eps": "1/20", "steps": 3})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (400, 1, 6, 6), dtype=np.uint8)
    return Dataset("noise", "test", pixels, draw.integers(0, 3, 400), np.arange(400)[::-1].copy(), tuple("abc"), "x")


@pytest.fixture(scope="module")
def classifier(dataset) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), num_classes=3)


@pytest.fixture(scope="module")
def whole(classifier, dataset):
    images, labels, ids = dataset.batch(slice(None))
    return evaluate(classifier, images, labels, [ATTACK], ids=ids, shard_size=50)


def test_all_evaluations_stop_at_the_first_prefix_that_answers(classifier, dataset, whole):
    images, labels, ids = dataset.batch(slice(None))
    short = evaluate(classifier, images, labels, [ATTACK], ids=ids, shard_size=50, until=0.07)
    n = len(short.frame("pgd"))
    assert short.stopped_early
    assert short.asked == 400
    assert set(short.frame("clean")["sample"]) == set(short.frame("pgd")["sample"]) == set(ids[:n].tolist())
    correct = {
        label: whole.frame(label).set_index("sample").loc[ids.tolist(), "correct"].to_numpy()
        for label in ("clean", "pgd")
    }

    def widest(count: int) -> float:
        return max(float(np.ptp(wilson(right[:count].sum(), count))) / 2 for right in correct.values())

    assert widest(n) <= 0.07 < widest(n - 50)
    summary = short.summary()
    assert summary["stopped_early"].all()
    assert (summary["n"] == n).all()


def test_the_prefix_holds_the_rows_of_the_whole_run(classifier, dataset, whole):
    images, labels, ids = dataset.batch(slice(None))
    short = evaluate(classifier, images, labels, [ATTACK], ids=ids, shard_size=50, until=0.07).frame("pgd")
    long = whole.frame("pgd")
    long = long[long["sample"].isin(short["sample"])].reset_index(drop=True)
    assert short["correct"].tolist() == long["correct"].tolist()
    assert short["distance"].tolist() == long["distance"].tolist()


def test_an_unanswered_question_takes_all_samples_and_says_so(classifier, dataset, whole):
    found = evaluate_dataset(classifier, dataset, [ATTACK], shard_size=50, until=0.001)
    assert not found.stopped_early
    assert not found.summary()["stopped_early"].any()
    assert found.rows.equals(whole.rows)


def test_a_stop_at_the_last_shard_is_not_early(classifier, dataset):
    assert not evaluate_dataset(classifier, dataset, [ATTACK], shard_size=400, until=0.2).stopped_early


def test_streaming_gives_the_rows_of_a_float_copy(classifier, dataset, whole):
    assert evaluate_dataset(classifier, dataset, [ATTACK], shard_size=50).rows.equals(whole.rows)


@pytest.mark.parametrize("until", [0.0, -0.1, 0.5, 1.0])
def test_impossible_widths_are_refused(classifier, dataset, until):
    with pytest.raises(ValueError, match="half-width"):
        evaluate_dataset(classifier, dataset, [ATTACK], until=until)


def test_a_set_without_labels_is_refused(classifier, dataset):
    bare = Dataset("noise", "test", dataset.pixels, np.full(400, -1), dataset.ids, (), "x")
    with pytest.raises(ValueError, match="no labels"):
        evaluate_dataset(classifier, bare, [ATTACK])
