"""Robust conformal sets on MNIST: coverage under attack and set sizes of LAC, RSCP+, RSCP+ with PTT, and RCT with both.

Run it as `python benchmarks/robust_conformal.py [test images] [eps ...]` (1000, and 1/4 3/8 1/2, unless given; MNIST
under ROBUST_DATA). Trains one
small CNN under noise and one by robust conformal training, calibrates on 2,000 images, attacks the smoothed network by
PGD in l2 on the true class's probability, averaged over noise, and prints a line for every method and radius.
"""

from __future__ import annotations

import sys
from fractions import Fraction

import torch
from torch import Tensor, nn

from robust.attacks.pgd import PGD
from robust.calibration.calibrator import SetPredictor, SmoothedSetPredictor
from robust.calibration.conformal import set_summary
from robust.calibration.lac import LAC
from robust.calibration.rscp_plus import RSCPPlus
from robust.calibration.rscp_plus_ptt import RSCPPlusPTT
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.objectives.robust_conformal_training import RobustConformalTraining
from robust.randomness import Randomness
from robust.registry import create
from robust.threat import ThreatModel
from robust.training import train

EPS, SIGMA = ("1/4", "3/8", "1/2"), 0.25
CHUNK = 250  # images whose noisy copies are judged at once


class Smoothed(nn.Module):
    """ln mean_m softmax(f(x + sigma z_m)) over a fixed bank of noise: what an attacker of the sets differentiates."""

    def __init__(self, classifier: Classifier, shape: torch.Size, copies: int = 8) -> None:
        super().__init__()
        self.classifier = classifier
        self.noise = torch.randn(copies, *shape, generator=torch.Generator().manual_seed(1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N,C,H,W] -> log probabilities [N,K]."""
        copies = (images[:, None] + SIGMA * self.noise).flatten(0, 1)
        return self.classifier(copies).unflatten(0, (len(images), len(self.noise))).softmax(2).mean(1).log()


def attacked(classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor, eps: Fraction) -> Tensor:
    """Images [N,C,H,W] at the end of 20 steps up the smoothed cross-entropy, also where the class has changed."""
    smoothed = Classifier(Smoothed(classifier, images.shape[1:]), num_classes=10).eval().requires_grad_(False)
    attack = PGD(threat=ThreatModel(norm="l2", eps=eps), steps=20, early_stop=False)
    found = [
        attack.perturb(smoothed, images[part], labels[part], Randomness.of(0, ids[part], "pgd"))
        for part in torch.arange(len(images)).split(CHUNK)
    ]
    return torch.cat(found)


def logits_of(method: object, classifier: Classifier, images: Tensor, ids: Tensor, split: str) -> Tensor:
    found = []
    with torch.no_grad():
        for part in torch.arange(len(images)).split(CHUNK):
            if isinstance(method, SmoothedSetPredictor):
                found.append(method.noisy_logits(classifier, images[part], Randomness.of(0, ids[part], split)))
            else:
                found.append(classifier(images[part]))
    return torch.cat(found)


def trained(pretraining: float, eps: Fraction, train_set: Dataset, select_set: Dataset) -> Classifier:
    training = {"epochs": 4, "batch_size": 128, "lr": 2e-3}
    objective = RobustConformalTraining(eps=eps, sigma=SIGMA, copies=4, pretraining=pretraining, training=training)
    start = create("model", {"name": "small-cnn"})
    return train(start, objective, train_set, select_set, threads=1, device="cpu").classifier.eval()


def main(count: int, radii: list[Fraction]) -> None:
    spec = create("dataset", {"name": "mnist", "train": 10_000, "select": 1000, "calibrate": 2000})
    train_set, select_set, calibrate, test = (spec.load(s) for s in ("train", "select", "calibrate", "test"))
    tuning, (images, labels, ids) = calibrate.batch(slice(0, 2000)), test.batch(slice(0, count))
    under_noise = trained(1.0, radii[0], train_set, select_set)
    for eps in radii:
        conformal = trained(0.5, eps, train_set, select_set)
        plain = RSCPPlus(eps=eps, sigma=SIGMA, beta=0.01)
        bent = RSCPPlusPTT(eps=eps, sigma=SIGMA, beta=0.01)
        rows: list[tuple[str, SetPredictor | SmoothedSetPredictor, Classifier]] = [
            ("lac", LAC(), under_noise), ("rscp-plus", plain, under_noise), ("rscp-plus-ptt", bent, under_noise),
            ("rct + rscp-plus", plain, conformal), ("rct + rscp-plus-ptt", bent, conformal),
        ]  # fmt: skip
        sizes = {}
        for name, method, classifier in rows:
            with classifier.frozen():
                moved = attacked(classifier, images, labels, ids, eps)
                fitted = method.fit(logits_of(method, classifier, tuning[0], tuning[2], "calibrate"), tuning[1])
                told = {
                    kind: set_summary(method.sets(logits_of(method, classifier, x, ids, "test"), fitted), labels)
                    for kind, x in (("clean", images), ("attacked", moved))
                }
            sizes[name] = told["clean"]["size"]
            print(
                f"eps {eps!s:<4} {name:<20} coverage clean {told['clean']['coverage']:.3f} attacked "
                f"{told['attacked']['coverage']:.3f}  size clean {told['clean']['size']:.2f} attacked "
                f"{told['attacked']['size']:.2f}",
                flush=True,
            )
        ratio = sizes["rct + rscp-plus-ptt"] / sizes["rscp-plus"]
        print(f"eps {eps!s:<4} sets of PTT + RCT over those of RSCP+: {ratio:.2f} (target 0.5)", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, [Fraction(text) for text in sys.argv[2:] or EPS])
