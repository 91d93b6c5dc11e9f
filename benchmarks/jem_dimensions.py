"""How a joint energy model fares as its images grow: cost, restarts, accuracy and detection at several sides.

Run it as `python benchmarks/jem_dimensions.py [side...]` (14, 28, 40 and 56 pixels unless given; MNIST and FashionMNIST
under ROBUST_DATA). The question is Q3 of the founding study: sampling is hard, does that narrow the use of JEM? Each
side gets the same network family, objective, schedule and 10,000 images of MNIST, scaled; a plain network of the same
recipe stands beside it. One seed, one thread, a quarter of an hour. The walk's step is not tuned again for each side:
these are the figures of somebody who only changes the images.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.adapt import adapt
from robust.datasets.dataset import Dataset
from robust.detection import metrics
from robust.detection.approximate_mass import ApproximateMass
from robust.randomness import Randomness
from robust.registry import create
from robust.trained import Trained, TrainingError
from robust.training import train

SIDES = (14, 28, 40, 56)
JUDGED = 1000  # images of each test set
BATCH, EPOCHS = 64, 4
RECIPE = {"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.0015, "warmup": 0.1, "restarts": 5, "restart_lr": 0.7}
PLAIN = {"name": "standard", "training": RECIPE}
JEM = {"name": "jem", "buffer": 1000, "step_size": 4, "training": RECIPE}


def trained(objective: dict[str, object], train_set: Dataset, select_set: Dataset) -> tuple[Trained, float]:
    """A trained network and the CPU seconds of one step."""
    start = time.process_time()
    network = create("model", "energy-cnn")
    found = train(network, create("objective", objective), train_set, select_set, threads=1, device="cpu")
    return found, (time.process_time() - start) * BATCH / (EPOCHS * len(train_set))


@torch.no_grad()
def accuracy(classifier: Classifier, test: Dataset) -> float:
    """Share of the test images that are right."""
    images, labels, _ = test.batch(slice(0, JUDGED))
    return float((classifier(images).argmax(1) == labels).float().mean())


def scores(classifier: Classifier, images: Tensor) -> dict[str, Tensor]:
    """Approximate mass and log p(x) of each image, [N]."""
    with torch.no_grad():
        log_px = classifier(images).double().logsumexp(1)
    return {"mass": ApproximateMass().score_images(classifier, images, {}, Randomness.of(0, [0])), "log-px": log_px}


def detection(classifier: Classifier, test: Dataset) -> list[float]:
    """AUROC of both scores against Fashion-MNIST and against uniform noise."""
    inside = scores(classifier, test.batch(slice(0, JUDGED))[0])
    found = []
    for name in ("fashion-mnist", "uniform-noise"):
        outside = adapt(create("dataset", {"name": name, "test": JUDGED}).load("test"), test.shape)
        seen = scores(classifier, outside.batch(slice(0, JUDGED))[0])
        found += [metrics.summary(inside[score], seen[score], score)["auroc"] for score in inside]
    return found


def row(side: int) -> str:
    """The figures of one side."""
    spec = create("dataset", {"name": "mnist", "side": side, "train": 10_000, "select": 500, "test": JUDGED})
    train_set, select_set, test = (spec.load(split) for split in ("train", "select", "test"))
    plain, plain_step = trained(PLAIN, train_set, select_set)
    try:
        energy, step = trained(JEM, train_set, select_set)
    except TrainingError as error:
        return f"{side:5}  the training gave up: {error}"
    right, right_plain = (100 * accuracy(each.classifier, test) for each in (energy, plain))
    apart = detection(energy.classifier, test)
    return (
        f"{side:5} {1e3 * step:8.0f} {step / plain_step:7.0f} {energy.restarts:9} {right:9.1f} {right_plain:7.1f}"
        + "".join(f"{value:10.3f}" for value in apart)
    )


def main(sides: list[int]) -> None:
    torch.set_num_threads(1)
    print(" " * 54 + "AUROC: fashion-mnist       uniform-noise")
    print(" side  ms/step x plain  restarts  accuracy   plain" + "".join(f"{s:>10}" for s in ("mass", "log-px") * 2))
    for side in sides:
        print(row(side), flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or list(SIDES))
