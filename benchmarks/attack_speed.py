"""PGD-40 beside its peers: CPU seconds as multiples of the floor, 40 x one forward and backward pass to the input.

Run it as `python benchmarks/attack_speed.py [samples]`, with MNIST and `nets/mnist_lenet5_advtrained.pt`,
`nets/mnist_lenet5_clntrained.pt` and `nets/mnist_wong_kolter.pth` under ROBUST_DATA; nets that are absent are left out,
and so are peers that are not installed (extra `bench`). Median of three interleaved rounds after a warm-up; CPU time of
one thread, because wall-clock time on a shared machine measures the neighbours. Goals: at most 1.15 on the robust nets
and 1.05 x the fastest peer, 0.25 on the undefended one, at equal verdicts.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable

import torch
from foreign_nets import load_net, path_of
from torch import Tensor, nn

from robust import torchvision
from robust.attacks.pgd import PGD
from robust.classifier import Classifier, Metered
from robust.judging import judge
from robust.memory_layout import channels_last_copy
from robust.randomness import Randomness
from robust.registry import create

STEPS, STEP_SIZE, ROUNDS = 40, 0.01, 3
NETS = {"mnist_lenet5_advtrained.pt": 0.3, "mnist_wong_kolter.pth": 0.1, "mnist_lenet5_clntrained.pt": 0.3}
Run = Callable[[], Tensor]


def contestants(net: nn.Module, images: Tensor, labels: Tensor, eps: float) -> dict[str, Run]:
    """Every way to spend 40 steps on these images; the floor does nothing but the passes.

    `ours` is the attack alone, as the peers run theirs; `judged` is the whole evaluation, with its own looks at the
    clean and attacked images, before and after rounding.
    """
    classifier = Classifier(net, num_classes=10)
    attack = PGD.model_validate({"eps": eps, "steps": STEPS, "step_size": STEP_SIZE})
    search = channels_last_copy(classifier, images) or classifier  # what an evaluation gives to its attacks

    def floor() -> Tensor:
        for _ in range(STEPS):
            leaf = images.clone().requires_grad_(True)
            torch.autograd.grad(net(leaf).sum(), leaf)
        return images

    def ours() -> Tensor:
        found = Metered(search, len(labels))
        return attack.perturb(found, images, labels, Randomness.of(0, range(len(labels)), "pgd"))

    def judged() -> Tensor:
        return judge(classifier, images, labels, torch.arange(len(labels)), attack, 0, len(labels), False).images

    runs: dict[str, Run] = {"floor": floor, "ours": ours, "judged": judged}
    if importlib.util.find_spec("torchattacks"):
        torchvision.load()
        peer = importlib.import_module("torchattacks").PGD(net, eps=eps, alpha=STEP_SIZE, steps=STEPS)
        runs["torchattacks"] = lambda: peer(images, labels)
    if importlib.util.find_spec("foolbox"):
        foolbox = importlib.import_module("foolbox")
        model = foolbox.PyTorchModel(net, bounds=(0, 1))
        linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS)
        runs["foolbox"] = lambda: linf(model, images, labels, epsilons=eps)[1]
    return runs


def main(samples: int) -> None:
    torch.set_num_threads(1)
    images, labels, _ = create("dataset", "mnist").load("test").batch(slice(0, 2 * samples))
    for name, eps in NETS.items():
        if not path_of(name).exists():
            print(f"{name}: left out, not under ROBUST_DATA")
            continue
        net = load_net(name).requires_grad_(False)
        right = net(images).argmax(1) == labels
        x, y = images[right][:samples], labels[right][:samples]
        runs = contestants(net, x, y, eps)
        seconds: dict[str, list[float]] = {key: [] for key in runs}
        standing = {key: float((net(run()).argmax(1) == y).float().mean()) for key, run in runs.items()}  # warm-up
        for _ in range(ROUNDS):
            for key, run in runs.items():
                start = time.process_time()
                run()
                seconds[key].append(time.process_time() - start)
        unit = statistics.median(seconds["floor"])
        print(f"{name}, linf {eps}, n = {len(y)}, floor {unit:.2f} CPU seconds")
        for key in runs:
            print(f"  {key:<13} {statistics.median(seconds[key]) / unit:6.3f} x floor   standing {standing[key]:.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
