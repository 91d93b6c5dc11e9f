"""AutoAttack standard beside the official code on MNIST: CPU seconds as a ratio, at equal verdicts, one thread.

    python benchmarks/autoattack_mnist.py --official ~/auto-attack --samples 256

needs MNIST and `nets/mnist_lenet5_advtrained.pt` under ROBUST_DATA, and a checkout of github.com/fra31/auto-attack.
Two nets: one that others trained by PGD at linf 0.3, and a small CNN that is trained on the spot by interval bounds at
linf 0.1, where the certificate spares most samples the attack. Goals: at most 0.8 and 0.2 x the official code. The
figures go to `benchmarks/results/autoattack_mnist.json`, rewritten after each net.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from autoattack_gpu import compare, surroundings, table
from foreign_nets import load_net

from robust.checkpoint import load_weights, save_weights, write_atomically
from robust.classifier import Classifier
from robust.models.small_cnn import SmallCNN
from robust.objectives.ibp import IBP
from robust.objectives.objective import Training
from robust.registry import create
from robust.training import train

EPS = {"ibp": "1/10", "lenet5-adv": "3/10"}
LENET = "mnist_lenet5_advtrained.pt"
RESULTS = Path(__file__).parent / "results" / "autoattack_mnist.json"


def ibp_trained(folder: Path, epochs: int) -> Classifier:
    """A small CNN with interval bounds at linf 0.1, from the folder or trained and saved there."""
    data = create("dataset", {"name": "mnist", "train": 20000, "select": 1000})
    model, path = SmallCNN(), folder / "mnist-ibp.safetensors"
    if path.exists():
        classifier = model.classifier(data.load("train").inputs())
        load_weights(classifier, path)
        return classifier.eval()
    objective = IBP(eps="1/10", training=Training(epochs=epochs, batch_size=100, optimizer="adam", lr=1e-3))
    run = train(model, objective, data.load("train"), data.load("select"), device="cpu", threads=1)
    print(f"trained by interval bounds: {run.seconds:.0f} s, select {run.history[-1]['select_accuracy']:.3f} clean, "
          f"{run.history[-1]['select_score']:.3f} verified", flush=True)  # fmt: skip
    save_weights(run.classifier, path)
    return run.classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="folder with the official code")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="where the net trained here is kept")
    parser.add_argument("--nets", nargs="+", choices=["ibp", "lenet5-adv"], default=["ibp", "lenet5-adv"])
    parser.add_argument("--epochs", type=int, default=15, help="of the training by interval bounds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images, labels, _ = create("dataset", "mnist").load("test").batch(slice(0, args.samples))
    args.weights.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"nets": {}}
    for name in args.nets:
        classifier = ibp_trained(args.weights, args.epochs) if name == "ibp" else Classifier(load_net(LENET))
        args.eps = eps = EPS[name]
        for figures in compare(classifier, images, labels, args):
            record["nets"][name] = {"eps": eps, "samples": len(labels), **surroundings(), **figures}
            write_atomically(RESULTS, json.dumps(record, indent=1).encode())
        table(name, "fp32", record["nets"][name])


if __name__ == "__main__":
    main()
