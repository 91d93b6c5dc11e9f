"""AutoAttack standard beside the official code on CIFAR-10: seconds per sample on a GPU, in fp32 and with TF32.

    python benchmarks/autoattack_gpu.py --official ~/auto-attack --weights weights --json result.json

needs CIFAR-10 under ROBUST_DATA and, for the comparison, a checkout of github.com/fra31/auto-attack. Both sides get the
same net, samples, batch size and published budgets. A net whose weights are not in the folder is trained on the spot
by PGD adversarial training for `--minutes` and saved there. Stages run from the cheapest to the dearest and the JSON
is rewritten after each, so a run that is cut off keeps what it has. Without a GPU, take small nets and few samples:

    python benchmarks/autoattack_gpu.py --width 8 --widen 1 --depth 10 --minutes 5 --samples 16 --json result.json
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from robust.attacks.attack import fooled
from robust.attacks.autoattack import AutoAttack
from robust.checkpoint import load_weights, save_weights, write_atomically
from robust.classifier import Classifier
from robust.datasets.dataset import DatasetSpec
from robust.judging import judge
from robust.models.model import Model
from robust.models.resnet18 import ResNet18
from robust.models.wrn import WideResNet
from robust.numerics import Passes
from robust.objectives.objective import Training
from robust.objectives.pgd_at import PGDAT
from robust.registry import create
from robust.statistics import mcnemar_exact
from robust.training import train

PACE_STEPS = 8  # optimiser steps that are timed to plan a training of given length


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="test images, the misclassified ones included")
    parser.add_argument("--batch", type=int, default=250, help="samples a batch on both sides")
    parser.add_argument("--nets", nargs="+", choices=["resnet18", "wrn-28-10"], default=["resnet18", "wrn-28-10"])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "tf32"], default=["tf32", "fp32"])
    parser.add_argument("--official", type=Path, help="folder with the official code; left out: ours alone")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of <net>.safetensors")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each net without weights")
    parser.add_argument("--inner", type=int, default=2, help="steps of the attack trained against")
    parser.add_argument("--train", type=int, help="training images; all when left out")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18")
    parser.add_argument("--depth", type=int, default=28, help="of the wide network")
    parser.add_argument("--widen", type=int, default=10, help="of the wide network")
    return parser.parse_args()


def trained(model: Model, data: DatasetSpec, path: Path, args: argparse.Namespace) -> tuple[Classifier, dict[str, Any]]:
    """The net in eval mode, read from `path` or trained and saved there, and what is known of its training."""
    train_set, select_set = data.load("train"), data.load("select")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if path.exists():
        classifier = model.classifier(train_set.inputs())
        load_weights(classifier, path)
        return classifier.to(device).eval(), {"weights": path.name}

    def settings(epochs: int) -> PGDAT:
        training = Training(
            epochs=epochs, batch_size=256, optimizer="sgd", lr=0.1, weight_decay=5e-4, schedule="one-cycle",
            clip_norm=1.0, augment="crop-flip", precision="bf16" if device == "cuda" else "32",
            select_every=max(1, epochs // 4),
        )  # fmt: skip
        return PGDAT(eps=args.eps, steps=args.inner, training=training)

    pace = train(model, settings(1), train_set.subset(slice(0, 256 * PACE_STEPS)), select_set.subset(slice(0, 16)))
    steps = max(1, round(args.minutes * 60 / pace.seconds * PACE_STEPS))  # start-up is in the pace: it ends early
    images = min(len(train_set), steps * 256)
    epochs = max(1, steps * 256 // images)
    print(f"training {path.stem}: {epochs} epochs of {images} images", flush=True)
    run = train(model, settings(epochs), train_set.subset(slice(0, images)), select_set)
    save_weights(run.classifier, path)
    facts = {"epochs": epochs, "images": images, "seconds": run.seconds, "history": run.history[-1]}
    return run.classifier, {"objective": settings(epochs).settings(), **facts}


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Matrix products and convolutions of float32 tensors in full float32, or in TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def timed(run: Callable[[], Tensor], classifier: Classifier, samples: int) -> tuple[Tensor, dict[str, float]]:
    """What `run` returned, its seconds (wall clock on a GPU), and the images that went through the net."""
    passes = Passes(classifier)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    # without a GPU the CPU's own seconds: wall-clock time on a shared machine measures the neighbours
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    images = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = clock() - start
    passes.remove()
    figures = {
        "seconds": seconds,
        "seconds_per_sample": seconds / samples,
        "forward_per_sample": passes.forward / samples,
        "backward_per_sample": passes.backward / samples,
    }
    if torch.cuda.is_available():
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return images, figures


def floor(classifier: Classifier, images: Tensor) -> dict[str, float]:
    """Seconds an image of a bare forward pass, and of a forward and backward pass to the input."""

    def forward() -> Tensor:
        with torch.no_grad():
            return classifier(images)

    def both() -> Tensor:
        leaf = images.clone().requires_grad_(True)
        return torch.autograd.grad(classifier(leaf).sum(), leaf)[0]

    found = {}
    for name, run in (("forward", forward), ("forward_backward", both)):
        run()
        best = min(timed(run, classifier, len(images))[1]["seconds_per_sample"] for _ in range(3))
        found[f"{name}_seconds_per_image"] = best
    return found


def official(folder: Path, classifier: Classifier, eps: float, batch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The official attack, ready to run on images and labels."""
    sys.path.insert(0, str(folder))
    code = importlib.import_module("autoattack")
    attack = code.AutoAttack(
        classifier, norm="Linf", eps=eps, seed=0, version="standard", device=classifier.device, verbose=False
    )
    return lambda images, labels: attack.run_standard_evaluation(images, labels, bs=batch)


def standing(classifier: Classifier, attack: AutoAttack, images: Tensor, origin: Tensor, labels: Tensor) -> Tensor:
    """Which samples are right before and after, [n]; an image outside the ball counts as the original."""
    with torch.no_grad():
        right = ~fooled(torch.cat([classifier(part) for part in origin.split(250)]), labels)
        hit = fooled(torch.cat([classifier(part) for part in images.split(250)]), labels)
    return right & ~(hit & attack.threat.contains(images, origin))


def compare(classifier: Classifier, images: Tensor, labels: Tensor, args: argparse.Namespace) -> Iterator[dict]:
    """The figures of one net in one precision: ours, then with the official code beside it."""
    attack = AutoAttack.model_validate({"norm": "linf", "eps": args.eps})
    n, ids = len(labels), torch.arange(len(labels))
    figures: dict[str, Any] = {"floor": floor(classifier, images[: args.batch])}

    counted: dict[str, float] = {}  # by the ledger: a search on a copy of the net passes the hooks on the net by

    def ours() -> Tensor:
        judged = judge(classifier, images, labels, ids, attack, 0, args.batch)
        counted.update({f"{way}_per_sample": float(judged.rows[way].mean()) for way in ("forward", "backward")})
        return judged.images.to(images.device)

    sides: dict[str, Callable[[], Tensor]] = {"ours": ours}
    if args.official:
        peer = official(args.official, classifier, attack.threat.radius, args.batch)
        sides["official"] = lambda: peer(images, labels)
    verdicts = {}
    for side, run in sides.items():
        with classifier.frozen():
            found, figures[side] = timed(run, classifier, n)
            figures[side] |= counted if side == "ours" else {}
            verdicts[side] = standing(classifier, attack, found, images, labels)
            figures[side]["robust_accuracy"] = float(verdicts[side].double().mean())
            with precision("fp32"):  # what was found in TF32 has to hold without it
                settled = standing(classifier, attack, found, images, labels)
            figures[side]["verdicts_changed_in_fp32"] = int((settled != verdicts[side]).sum())
        if side == "official":
            mine, theirs = verdicts["ours"], verdicts["official"]
            only_mine, only_theirs = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
            figures["ratio"] = figures["ours"]["seconds"] / figures["official"]["seconds"]
            figures |= {"stand_only_under_ours": only_mine, "stand_only_under_official": only_theirs}
            figures["mcnemar_p"] = float(mcnemar_exact(only_mine, only_theirs))
        yield figures


def surroundings() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "command": shlex.join(["python", *("DIR" if Path(word).is_absolute() else word for word in sys.argv)]),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(name: str, mode: str, figures: dict[str, Any]) -> None:
    for side in ("ours", "official"):
        if side in figures:
            row = figures[side]
            print(
                f"{name:<10} {mode} {side:<9} {row['seconds_per_sample']:9.4f} s a sample   "
                f"robust {row['robust_accuracy']:.4f}   passes a sample {row['forward_per_sample']:.0f} forward, "
                f"{row['backward_per_sample']:.0f} backward   changed in fp32: {row['verdicts_changed_in_fp32']}"
            )
    if "ratio" in figures:
        print(
            f"{name:<10} {mode} ours / official {figures['ratio']:.3f}; differing verdicts "
            f"{figures['stand_only_under_ours']} + {figures['stand_only_under_official']}, "
            f"McNemar p {figures['mcnemar_p']:.3f}",
            flush=True,
        )


def main() -> None:
    args = arguments()
    if args.official and not (args.official / "autoattack" / "autoattack.py").exists():
        sys.exit(
            f"--official: {args.official} is no checkout of the official code: autoattack/autoattack.py is missing"
        )
    models = {"resnet18": ResNet18(width=args.width), "wrn-28-10": WideResNet(depth=args.depth, widen=args.widen)}
    data = cast(DatasetSpec, create("dataset", {"name": args.dataset} | ({"train": args.train} if args.train else {})))
    images, labels, _ = data.load("test").batch(slice(0, args.samples))
    record: dict[str, Any] = {**surroundings(), "samples": len(labels), "eps": args.eps, "nets": {}}
    modes = args.precisions if torch.cuda.is_available() else ["fp32"]  # TF32 is the GPU's own
    for name in args.nets:
        classifier, facts = trained(models[name], data, args.weights / f"{name}.safetensors", args)
        x, y = images.to(classifier.device), labels.to(classifier.device)
        net = record["nets"][name] = {"model": models[name].settings(), "training": facts}
        for mode in modes:
            with precision(mode):
                for figures in compare(classifier, x, y, args):
                    net[mode] = figures
                    write_atomically(args.json, json.dumps(record, indent=1).encode())
            table(name, mode, net[mode])


if __name__ == "__main__":
    main()
