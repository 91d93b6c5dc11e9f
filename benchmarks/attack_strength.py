"""Strength beside the peers: the same attack, budget, network and samples, judged alike.

Run it as `python benchmarks/attack_strength.py --samples 100`, with MNIST and the files of `benchmarks/foreign_nets.py`
under ROBUST_DATA; networks that are absent are left out, and so are peers that are not installed (extra `bench`).
Fixed budgets compare robust accuracy with the 95 % paired interval of ours minus theirs: ours fails where the whole
interval lies above 0. Smallest distances compare medians over the same samples, failures infinite: ours fails above
1.02 x the best peer's. An image counts only where it is misclassified, in the box and, where there is one, in the
ball. Prints a table and writes `benchmarks/results/attack_strength.json`. `--full` adds AutoAttack.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from attack_peers import Budget, Run, Runs, fixed_budget, smallest_distance
from foreign_nets import load_net, path_of
from torch import Tensor, nn

from robust.registry import create
from robust.statistics import paired_bootstrap
from robust.threat import ThreatModel

# radius of the fixed budgets: the published ones of the robust nets; the undefended one would lose every image at 0.3
NETS = {"mnist_lenet5_clntrained.pt": "0.1", "mnist_lenet5_advtrained.pt": "0.3", "mnist_wong_kolter.pth": "0.1"}
RESULTS = Path(__file__).parent / "results" / "attack_strength.json"
MOST = 1.02  # x the best peer's median distance
Row = dict[str, Any]


@torch.no_grad()
def judged(net: nn.Module, found: Tensor, images: Tensor, labels: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Whether each sample still stands [N], and the distance of its success [N], infinite where there is none."""
    found = torch.as_tensor(found).detach().to(images.dtype)
    fallen = (net(found).argmax(1) != labels) & threat.contains(found, images)
    return ~fallen, torch.where(fallen, threat.distance(found, images), torch.inf)


def timed(run: Run, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """What the run found, and its CPU seconds."""
    torch.manual_seed(0)  # the peers draw from the global generator
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        found = run(images.clone(), labels.clone())
    return found, time.process_time() - start


def compare(net: nn.Module, runs: Runs, images: Tensor, labels: Tensor, eps: str | None) -> list[Row]:
    """One row an attack: ours, each peer, and whether the goal is met."""
    rows = []
    for name, contestants in runs.items():
        norm = "linf" if eps else name.split("/")[1]
        threat = ThreatModel.model_validate({"norm": norm, "eps": eps})
        outcome, seconds = {}, {}
        for library, run in contestants.items():
            found, seconds[library] = timed(run, images, labels)
            outcome[library] = judged(net, found, images, labels, threat)
        row = _accuracy(outcome) if eps else _median(outcome)
        rows.append({"attack": name, "eps": eps, **row, "cpu_seconds": seconds})
        print(_line(rows[-1]), flush=True)
    return rows


def _accuracy(outcome: dict[str, tuple[Tensor, Tensor]]) -> Row:
    standing = {library: stands.double().numpy() for library, (stands, _) in outcome.items()}
    ours = standing.pop("ours")
    gaps = {library: paired_bootstrap(ours, theirs) for library, theirs in standing.items()}
    return {
        "measure": "robust accuracy",
        "ours": float(ours.mean()),
        "peers": {library: float(theirs.mean()) for library, theirs in standing.items()},
        "ours_minus_peer": {library: [gap.estimate, gap.low, gap.high] for library, gap in gaps.items()},
        "met": all(gap.low <= 0 for gap in gaps.values()),
    }


def _median(outcome: dict[str, tuple[Tensor, Tensor]]) -> Row:
    medians = {library: float(distance.median()) for library, (_, distance) in outcome.items()}
    ours, best = medians.pop("ours"), min(medians.values(), default=float("inf"))
    return {
        "measure": "median distance",
        "ours": ours,
        "peers": medians,
        "found": {library: float(distance.isfinite().double().mean()) for library, (_, distance) in outcome.items()},
        "ratio": ours / best,
        "met": ours <= MOST * best,
    }


def _line(row: Row) -> str:
    peers = "  ".join(f"{library} {value:.4f}" for library, value in row["peers"].items())
    more = f"x{row['ratio']:.3f}" if "ratio" in row else ""
    return f"  {row['attack']:<14} ours {row['ours']:.4f}  {peers}  {more} {'met' if row['met'] else 'NOT MET'}"


def main() -> None:
    """Read the sizes, run everything, print and write."""
    parser = argparse.ArgumentParser(description="Strength of the attacks beside their peers.")
    parser.add_argument("--samples", type=int, default=100, help="correctly classified test images of each network")
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--full", action="store_true", help="AutoAttack standard too")
    parser.add_argument("--attacks", nargs="*", help="only these rows, for example cw/l2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    budget, tables = Budget(), {}
    mnist: Any = create("dataset", "mnist")
    images, labels, _ = mnist.load("test").batch(slice(0, 2 * arguments.samples))
    for name in arguments.nets:
        if not path_of(name).exists():
            print(f"{name}: left out, not under ROBUST_DATA")
            continue
        net = load_net(name).requires_grad_(False)
        right = net(images).argmax(1) == labels
        x, y = images[right][: arguments.samples], labels[right][: arguments.samples]
        print(f"{name}, n = {len(y)}, linf {NETS[name]} and smallest distances", flush=True)
        fixed = fixed_budget(net, float(NETS[name]), budget, arguments.full)
        near = smallest_distance(net, budget)
        rows = compare(net, _chosen(fixed, arguments.attacks), x, y, NETS[name])
        tables[name] = [*rows, *compare(net, _chosen(near, arguments.attacks), x, y, None)]
    report = {"samples": arguments.samples, "budget": vars(budget), "torch": torch.__version__, "networks": tables}
    _write(arguments.out, report)


def _chosen(runs: Runs, wanted: list[str] | None) -> Runs:
    return {name: run for name, run in runs.items() if not wanted or name in wanted}


def _write(path: Path, report: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
