"""PGD-40 in full precision and with the bfloat16 search of `low-precision`: CPU seconds as ratios, verdicts beside.

Run it as `python benchmarks/low_precision.py [samples]`, with MNIST and the nets of `attack_speed.py` under
ROBUST_DATA. One thread, median of three interleaved rounds after a warm-up. `polished` settles
failures by three full-precision steps, `again` by the whole attack, whose verdicts it can therefore only lower.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from attack_speed import NETS, STEP_SIZE, STEPS
from foreign_nets import load_net
from torch import Tensor

from robust.attacks.low_precision import LowPrecision
from robust.attacks.pgd import PGD
from robust.classifier import Classifier, Metered
from robust.datasets.root import root
from robust.randomness import Randomness
from robust.registry import create

ROUNDS = 3


def standing(attack: PGD | LowPrecision, classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Which samples [N] withstand the attack, judged in full precision."""
    rng = Randomness.of(0, range(len(labels)), "pgd")
    draws = rng if isinstance(attack, LowPrecision) else rng.fork("pgd")  # the wrapper forks for its inner attack
    found = attack.perturb(Metered(classifier, len(labels)), images, labels, draws)
    with torch.no_grad():
        return classifier(found).argmax(1) == labels


def main(samples: int) -> None:
    """Print one block a net."""
    torch.set_num_threads(1)
    images, labels, _ = create("dataset", "mnist").load("test").batch(slice(0, 2 * samples))
    for name, eps in NETS.items():
        if not (root() / "nets" / name).exists():
            continue
        classifier = Classifier(load_net(name).requires_grad_(False), num_classes=10)
        with torch.no_grad():
            right = classifier(images).argmax(1) == labels
        x, y = images[right][:samples], labels[right][:samples]
        plain = PGD.model_validate({"eps": eps, "steps": STEPS, "step_size": STEP_SIZE})
        attacks: dict[str, PGD | LowPrecision] = {
            "plain": plain,
            "polished": LowPrecision(attack=plain, again=False),
            "again": LowPrecision(attack=plain),
        }
        verdicts = {key: standing(attack, classifier, x, y) for key, attack in attacks.items()}  # warm-up
        seconds: dict[str, list[float]] = {key: [] for key in attacks}
        for _ in range(ROUNDS):
            for key, attack in attacks.items():
                start = time.process_time()
                standing(attack, classifier, x, y)
                seconds[key].append(time.process_time() - start)
        unit = statistics.median(seconds["plain"])
        print(f"{name}, linf {eps}, n = {len(y)}, plain {unit:.2f} CPU seconds")
        for key, stands in verdicts.items():
            more, fewer = int((stands & ~verdicts["plain"]).sum()), int((~stands & verdicts["plain"]).sum())
            ratio = statistics.median(seconds[key]) / unit
            print(f"  {key:<9} {ratio:6.3f} x   standing {float(stands.float().mean()):.4f}   +{more} -{fewer}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
