"""Robust conformal sets on MNIST or CIFAR-10: coverage under attack and set sizes of LAC, RSCP+, PTT and RCT.

Run it as `python benchmarks/robust_conformal.py [mnist | cifar10] [test images] [eps ...]`, with the data and
`nets/cifar10_resnet20-12fca82f.th` under ROBUST_DATA. One network is trained under noise and one by robust conformal
training, in as many steps: for MNIST from nothing, for CIFAR-10 from the published ResNet-20. Both are calibrated,
smoothed by the settings of Yan et al. 2024 (sigma 1/4, 256 copies, beta 0.001, alpha 0.1) and attacked by PGD in l2 on
the true class's probability, averaged over noise. A line for every method and radius; the target is that PTT and RCT
together halve RSCP+'s sets. About ten minutes of a core for a radius on MNIST, forty on CIFAR-10.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from foreign_nets import load_net
from torch import Tensor, nn

from robust.attacks.pgd import PGD
from robust.calibration.calibrator import SetPredictor
from robust.calibration.conformal import set_summary
from robust.calibration.lac import LAC
from robust.calibration.rscp_plus import RSCPPlus
from robust.calibration.rscp_plus_ptt import RSCPPlusPTT
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.models.model import Model
from robust.objectives.robust_conformal_training import RobustConformalTraining
from robust.randomness import Randomness
from robust.registry import create
from robust.threat import ThreatModel
from robust.training import train

SIGMA = 0.25
CHUNK = 250  # images whose noisy copies are judged at once


@dataclass(frozen=True)
class Setting:
    """A data set, the network that both trainings start from, and the sizes that a processor can bear."""

    dataset: dict[str, object]
    start: Callable[[], Model | Classifier]
    training: dict[str, object]
    copies: int  # of noise in training and attack
    eps: tuple[str, ...]
    samples: int


SETTINGS = {
    "mnist": Setting(
        dataset={"name": "mnist", "train": 10_000, "select": 1000, "calibrate": 2000},
        start=lambda: create("model", {"name": "small-cnn"}),
        training={"epochs": 4, "batch_size": 128, "lr": 2e-3},
        copies=4,
        eps=("1/4", "3/8", "1/2"),
        samples=1000,
    ),
    "cifar10": Setting(
        dataset={"name": "cifar10", "train": 30_000, "select": 500, "calibrate": 1000},
        start=lambda: Classifier(
            load_net("cifar10_resnet20-12fca82f.th"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), num_classes=10
        ).to(memory_format=torch.channels_last),
        training={"epochs": 3, "batch_size": 128, "lr": 1e-3, "augment": "crop-flip"},
        copies=2,
        eps=("1/8",),
        samples=300,
    ),
}


class Smoothed(nn.Module):
    """ln mean_m softmax(f(x + sigma z_m)) over a fixed bank of noise: what an attacker of the sets differentiates."""

    def __init__(self, classifier: Classifier, shape: torch.Size, copies: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.noise = torch.randn(copies, *shape, generator=torch.Generator().manual_seed(1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N,C,H,W] -> log probabilities [N,K]."""
        copies = (images[:, None] + SIGMA * self.noise).flatten(0, 1)
        return self.classifier(copies).unflatten(0, (len(images), len(self.noise))).softmax(2).mean(1).log()


def attacked(classifier: Classifier, images: Tensor, labels: Tensor, ids: Tensor, eps: Fraction, copies: int) -> Tensor:
    """Images [N,C,H,W] at the end of 20 steps up the smoothed cross-entropy, also where the class has changed."""
    module = Smoothed(classifier, images.shape[1:], copies)
    smoothed = Classifier(module, num_classes=10).eval().requires_grad_(False)
    attack = PGD(threat=ThreatModel(norm="l2", eps=eps), steps=20, early_stop=False)
    found = [
        attack.perturb(smoothed, images[part], labels[part], Randomness.of(0, ids[part], "pgd"))
        for part in torch.arange(len(images)).split(CHUNK)
    ]
    return torch.cat(found)


@torch.no_grad()
def logits_of(
    method: SetPredictor | RSCPPlus, classifier: Classifier, images: Tensor, ids: Tensor, split: str
) -> Tensor:
    """Logits [N,K], or [N,M,K] of noisy copies: what this method takes."""
    parts = torch.arange(len(images)).split(CHUNK)
    if isinstance(method, RSCPPlus):
        noisy = [method.noisy_logits(classifier, images[part], Randomness.of(0, ids[part], split)) for part in parts]
        return torch.cat(noisy)
    return torch.cat([classifier(images[part]) for part in parts])


def trained(setting: Setting, pretraining: float, eps: Fraction, train_set: Dataset, select_set: Dataset) -> Classifier:
    """A network after cross-entropy under noise for the share `pretraining` of its steps, then RCT."""
    objective = RobustConformalTraining(
        eps=eps, sigma=SIGMA, copies=setting.copies, pretraining=pretraining, training=setting.training
    )
    return train(setting.start(), objective, train_set, select_set, threads=1, device="cpu").classifier.eval()


def main(setting: Setting, count: int, radii: list[Fraction]) -> None:
    torch.set_num_threads(1)
    spec = create("dataset", setting.dataset)
    train_set, select_set, calibrate, test = (spec.load(s) for s in ("train", "select", "calibrate", "test"))
    tuning, (images, labels, ids) = calibrate.batch(slice(0, len(calibrate))), test.batch(slice(0, count))
    under_noise = trained(setting, 1.0, radii[0], train_set, select_set)
    for eps in radii:
        plain, bent = RSCPPlus(eps=eps, sigma=SIGMA), RSCPPlusPTT(eps=eps, sigma=SIGMA)
        conformal = trained(setting, 0.5, eps, train_set, select_set)
        methods: list[tuple[str, Classifier, dict[str, SetPredictor | RSCPPlus]]] = [
            ("noise", under_noise, {"lac": LAC(), "rscp-plus": plain, "rscp-plus-ptt": bent}),
            ("rct", conformal, {"lac": LAC(), "rct + rscp-plus": plain, "rct + rscp-plus-ptt": bent}),
        ]
        sizes = {}
        for training, classifier, predictors in methods:
            with classifier.frozen():
                moved = attacked(classifier, images, labels, ids, eps, 2 * setting.copies)
                seen = {
                    "calibrate": (tuning[0], tuning[2], "calibrate"),
                    "clean": (images, ids, "test"),
                    "attacked": (moved, ids, "test"),
                }
                single = {name: logits_of(LAC(), classifier, *batch) for name, batch in seen.items()}
                noisy = {name: logits_of(plain, classifier, *batch) for name, batch in seen.items()}
            right = (noisy["clean"].softmax(2).mean(1).argmax(1) == labels).float().mean()
            print(f"eps {eps!s:<4} trained by {training}: smoothed accuracy {right:.3f}", flush=True)
            for name, method in predictors.items():
                logits = noisy if isinstance(method, RSCPPlus) else single
                fitted = method.fit(logits["calibrate"], tuning[1])
                clean, hit = (set_summary(method.sets(logits[s], fitted), labels) for s in ("clean", "attacked"))
                sizes[name] = clean["size"]
                print(
                    f"eps {eps!s:<4} {name:<20} coverage clean {clean['coverage']:.3f} attacked {hit['coverage']:.3f}"
                    f"  size clean {clean['size']:.2f} attacked {hit['size']:.2f}",
                    flush=True,
                )
        ratio = sizes["rct + rscp-plus-ptt"] / sizes["rscp-plus"]
        print(f"eps {eps!s:<4} sets of PTT + RCT over those of RSCP+: {ratio:.2f} (target 0.5)", flush=True)


if __name__ == "__main__":
    chosen = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in SETTINGS else "mnist"
    use = SETTINGS[chosen]
    amount = int(sys.argv[1]) if len(sys.argv) > 1 else use.samples
    main(use, amount, [Fraction(text) for text in sys.argv[2:] or use.eps])
