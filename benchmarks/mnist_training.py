"""MNIST at linf 0.3: trains `small-cnn` as `studies/mnist.yaml` does and prints accuracies, image passes and seconds.

Run it as `python benchmarks/mnist_training.py [threads]` with MNIST under ROBUST_DATA; about six minutes on two idle
cores. What to expect stands in the last column.
"""

from __future__ import annotations

import sys

from robust.attacks.pgd import PGD
from robust.datasets.dataset import DatasetError
from robust.evaluation import evaluate
from robust.study_file import load
from robust.training import train

EXPECTED = {"standard": "clean >= 0.985, PGD-40 <= 0.05", "pgd-at": "clean >= 0.95, PGD-40 >= 0.80"}


def main(threads: int | None) -> None:
    study = load("studies/mnist.yaml")
    try:
        train_set, select_set, test_set = (study.dataset.load(split) for split in ("train", "select", "test"))
    except DatasetError as error:
        print(f"mnist_training: left out, {error}")
        return
    images, labels, ids = test_set.batch(slice(0, 2000))
    attack = PGD(norm="linf", eps="3/10", steps=40, step_size="1/50")
    print(f"{'objective':<10} {'clean':>7} {'PGD-40':>7} {'forward':>10} {'backward':>10} {'seconds':>8}  expected")
    for entry in study.objectives:
        trained = train(study.models[0].method, entry.method, train_set, select_set, seed=0, threads=threads)
        found = evaluate(trained.classifier.cpu(), images, labels, [attack], ids=ids)
        clean, robust = (found.frame(name)["correct"].mean() for name in ("clean", "pgd"))
        print(
            f"{entry.label:<10} {clean:7.4f} {robust:7.4f} {trained.forward:10,} {trained.backward:10,} "
            f"{trained.seconds:8.1f}  {EXPECTED.get(entry.label, '')}",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
