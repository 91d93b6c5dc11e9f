"""False alarms: honest networks, trained in every honest way, diagnosed; not one of them may be called suspect.

Run it as `python benchmarks/honest_zoo.py [seeds on digits] [seeds on MNIST] [kind]` (20, 3 and every kind unless
given; MNIST under ROBUST_DATA). Prints one line a network, with its clean accuracy, then the largest value that each
check saw beside its bound, and exits with 1 after an alarm. Every kind is diagnosed at half, once and twice the radius
that the robust ones are trained for. Interval training comes twice: as short as the others, which leaves networks that
are hardly trained yet, and with five times the epochs.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction

import torch
from torch import nn

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset, DatasetError
from robust.diagnostics.masking import diagnose
from robust.diagnostics.verdict import Check
from robust.registry import create, entries
from robust.threat import ThreatModel
from robust.training import train

ARCHITECTURES = ("mlp", "small-cnn", "batch-norm")


def network(architecture: str, data: Dataset, seed: int) -> Classifier:
    inputs = data.inputs()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if architecture == "batch-norm":
            channels, side = inputs.shape[0], inputs.shape[1]
            module = nn.Sequential(
                nn.Conv2d(channels, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                nn.Linear(8 * ((side + 1) // 2) ** 2, 48), nn.BatchNorm1d(48), nn.ReLU(),
                nn.Linear(48, inputs.num_classes),
            )  # fmt: skip
            return Classifier(module, inputs.mean, inputs.std, inputs.num_classes)
        fields = {"hidden": (64, 64)} if architecture == "mlp" else {"width": 8, "hidden": 48}
        return create("model", {"name": architecture, **fields}).classifier(inputs)


def kinds(eps: Fraction, epochs: int) -> dict[str, dict[str, object]]:
    training = {"epochs": epochs, "batch_size": 64, "lr": 3e-3}
    ball = {"norm": "linf", "eps": str(eps), "steps": 5}
    found: dict[str, dict[str, object]] = {
        "standard": {"name": "standard"},
        "label smoothing": {"name": "standard", "label_smoothing": 0.1},
        "pgd-at": {"name": "pgd-at", **ball},
        "trades": {"name": "trades", **ball},
    }
    if "ibp" in {entry.name for entry in entries("objective")}:
        found["ibp"] = {"name": "ibp", "eps": str(eps / 2)}
    complete = {kind: {**settings, "training": training} for kind, settings in found.items()}
    if "ibp" in found:
        complete["ibp, long"] = {**found["ibp"], "training": {**training, "epochs": 5 * epochs}}
    return complete


def false_alarms(dataset: str, seeds: int, eps: Fraction, epochs: int, only: str, worst: dict[str, Check]) -> int:
    spec = create("dataset", {"name": dataset})
    try:
        train_set, select_set, test_set = (spec.load(split) for split in ("train", "select", "test"))
    except DatasetError as error:
        print(f"honest_zoo: {dataset} left out, {error}")
        return 0
    train_set = train_set.subset(slice(0, 10_000))
    images, labels, ids = test_set.batch(slice(0, 360))
    threats = [ThreatModel(norm="linf", eps=eps * share) for share in (Fraction(1, 2), 1, 2)]
    alarms = 0
    for seed in range(seeds):
        for kind, settings in kinds(eps, epochs).items():
            if only not in ("", kind):
                continue
            bounded = str(settings["name"]) == "ibp"  # interval bounds are for nets without batch statistics
            architecture = ARCHITECTURES[seed % 2] if bounded else ARCHITECTURES[(seed + len(kind)) % 3]
            start = network(architecture, train_set, seed)
            trained = train(
                start, create("objective", settings), train_set, select_set, seed=seed, threads=1, device="cpu"
            )
            began = time.process_time()
            found = diagnose(trained.classifier, images, labels, ids, threats, seed)
            failed = [f"{check.threat} {check.check}: {check.reason}" for check in found.checks if not check.passed]
            alarms += bool(failed)
            with trained.classifier.frozen() as classifier, torch.no_grad():
                clean = float((classifier(images).argmax(1) == labels).double().mean())
            for check in found.checks:
                if check.check not in worst or distance(check) > distance(worst[check.check]):
                    worst[check.check] = check
            print(
                f"{dataset:<7} {kind:<15} {architecture:<10} seed {seed:<2} clean {clean:.3f} "
                f"{found.forward:6.0f} forward {found.backward:6.0f} backward "
                f"{time.process_time() - began:6.1f} s  {failed or 'trusted'}",
                flush=True,
            )
    return alarms


def distance(check: Check) -> float:
    """How near a check came to failing: for most, the larger the value, for a few the smaller."""
    low = check.check in ("slopes as the gradient says", "confidence", "loss rises", "enough samples")
    return -check.value if low else check.value


def main(on_digits: int, on_mnist: int, only: str) -> int:
    worst: dict[str, Check] = {}
    alarms = false_alarms("digits", on_digits, Fraction(1, 10), 8, only, worst)
    alarms += false_alarms("mnist", on_mnist, Fraction(1, 10), 2, only, worst)
    for name, check in worst.items():
        print(f"nearest to an alarm  {name:<40} {check.value:10.4f}  bound {check.bound:g}")
    print(f"alarms: {alarms}")
    return min(alarms, 1)


if __name__ == "__main__":
    digits, mnist, kind = (*sys.argv[1:4], *("20", "3", "")[len(sys.argv) - 1 :])
    sys.exit(main(int(digits), int(mnist), kind))
