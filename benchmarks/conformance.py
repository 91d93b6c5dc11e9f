"""Conformance: networks that others trained, our figure beside the one that was published. Writes docs/conformance.md.

Run it as `python benchmarks/conformance.py --samples 500`, with the networks of `benchmarks/foreign_nets.py` and the
test sets of MNIST and CIFAR-10 under ROBUST_DATA. Networks go the way of `robust evaluate`: loaded, probed for what
they expect, then attacked; the first samples of the test set's fixed shuffle are used, a tenth of them by the attacks
that take hundreds of passes. `--net NAME` measures one network again and keeps what is on record of the others. The
exit code is 1 if a figure is outside the tolerance that stands beside it and no difference is explained.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from foreign_nets import load_net, path_of
from scipy import stats

from robust.attacks.attack import Attack
from robust.certificates.certificate import VERIFIED
from robust.certificates.crown import Crown
from robust.classifier import Classifier
from robust.datasets.adapt import adapt
from robust.datasets.dataset import Dataset
from robust.evaluation import Ledger
from robust.foreign.hypotheses import Declared
from robust.foreign.loaded import Loaded
from robust.foreign.preparation import prepared
from robust.foreign.probe import Examination, examine
from robust.randomness import Randomness
from robust.registry import create
from robust.streaming import evaluate_dataset

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
RESULTS = Path(__file__).parent / "results" / "conformance.json"
DEAR = 10  # the attacks on smallest distances take hundreds of passes: a tenth of the samples


@dataclass(frozen=True)
class Figure:
    """A published figure: what it counts, its value, and how ours is measured.

    `attack` settings (None for clean images); `measure` "error", "success" (of those classified correctly) or "median"
    (distance, of those classified correctly). `slack` is the relative tolerance of a distance; counts get the 99 %
    binomial interval of the sample, and half a unit of the last printed digit. `why` explains a difference that is
    known in advance.
    """

    what: str
    published: float
    measure: str = "error"
    attack: dict[str, Any] | None = None
    slack: float = 0.1
    why: str = ""


def pgd(eps: str, steps: int, size: str) -> dict[str, Any]:
    """PGD without a random start, as both publications ran it."""
    return {"name": "pgd", "norm": "linf", "eps": eps, "steps": steps, "step_size": size, "random_start": False}


def fab(norm: str) -> dict[str, Any]:
    """FAB with the benchmark's 20 iterations and one start."""
    return {"name": "fab", "norm": norm, "steps": 20, "restarts": 1}


SMALLEST = "ours is smaller: theirs is the median of one attack, which need not find the nearest image"
FIGURES: dict[str, list[Figure]] = {
    "cifar10_resnet20-12fca82f.th": [Figure("error, %", 8.27)],
    "mnist_wong_kolter.pth": [
        Figure("error, %", 1.8),
        Figure("error under FGSM, linf 0.1, %", 3.9, "error", {"name": "fgsm", "norm": "linf", "eps": "0.1"}),
        Figure("error under PGD, linf 0.1, %", 4.1, "error", pgd("0.1", 40, "0.01")),
        Figure("not certified at linf 0.1, %", 5.8, "uncertified"),
    ],
    "mnist_lenet5_clntrained.pt": [
        Figure("error, %", 1.11),
        Figure("success of PGD, linf 0.3, %", 100.0, "success", pgd("0.3", 40, "0.01")),
        Figure("median distance of FAB, linf", 0.112, "median", fab("linf")),
        Figure("median distance of FAB, l2", 1.423, "median", fab("l2")),
        Figure("median distance of FAB, l1", 7.61, "median", fab("l1")),
        Figure("median distance of DDN, l2", 1.388, "median", {"name": "ddn", "steps": 1000}),
    ],
    "mnist_lenet5_advtrained.pt": [
        Figure("error, %", 1.36),
        Figure("success of PGD, linf 0.3, %", 6.8, "success", pgd("0.3", 40, "0.01")),
        Figure("median distance of FAB, linf", 0.3509, "median", fab("linf")),
        Figure("median distance of FAB, l2", 3.04, "median", fab("l2"), 0.1, SMALLEST),
        Figure("median distance of FAB, l1", 112.8, "median", fab("l1"), 0.1, SMALLEST),
        Figure("median distance of DDN, l2", 1.872, "median", {"name": "ddn", "steps": 1000}),
    ],
}  # fmt: skip


# what a publication says about its inputs; CIFAR-10's own constants do as well on a few hundred images
DECLARED = {"cifar10_resnet20-12fca82f.th": Declared(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))}


@dataclass(frozen=True)
class Subject:
    """A network ready to be judged: as the probe prepared it, with the data in its shape."""

    classifier: Classifier
    data: Dataset
    found: Examination


def subject(name: str, samples: int) -> Subject:
    """Load, probe, prepare."""
    net = load_net(name)
    spec = create("dataset", "cifar10" if name.startswith("cifar10") else "mnist")
    whole = spec.load("test")  # type: ignore[attr-defined]
    found = examine(Loaded(net, "a published network"), whole, DECLARED.get(name, Declared()))
    data = adapt(whole, found.preparation.shape).subset(slice(0, samples))
    return Subject(prepared(net, found.preparation), data, found)


def measured(figure: Figure, mine: Subject) -> tuple[float, float, int]:
    """Our figure, the half-width of its tolerance, and the number of samples behind it."""
    if figure.measure == "uncertified":
        return uncertified(figure, mine)
    dear = figure.measure == "median"
    data = mine.data.subset(slice(0, max(20, len(mine.data) // DEAR))) if dear else mine.data
    attack = [] if figure.attack is None else [create("attack", figure.attack)]
    ledger = evaluate_dataset(mine.classifier, data, attack, certify_first=False)  # type: ignore[arg-type]
    return {"error": error, "success": success, "median": median}[figure.measure](figure, ledger, attack)


def error(figure: Figure, ledger: Ledger, attack: list[Attack]) -> tuple[float, float, int]:
    """Share of all samples that are wrong, in per cent."""
    rows = ledger.frame(attack[0].name if attack else "clean")
    return 100 * float(1 - rows["correct"].mean()), tolerance(figure.published, len(rows)), len(rows)


def success(figure: Figure, ledger: Ledger, attack: list[Attack]) -> tuple[float, float, int]:
    """Share of the correctly classified samples that the attack turns, in per cent."""
    right = ledger.frame("clean")["correct"].to_numpy(bool)
    turned = ledger.frame(attack[0].name)["success"].to_numpy(bool)[right]
    return 100 * float(turned.mean()), tolerance(figure.published, len(turned)), len(turned)


def median(figure: Figure, ledger: Ledger, attack: list[Attack]) -> tuple[float, float, int]:
    """Median distance over the correctly classified samples, failures infinite."""
    right = ledger.frame("clean")["correct"].to_numpy(bool)
    distances = ledger.frame(attack[0].name)["distance"].to_numpy(float)[right]
    ordered = np.sort(distances)
    low, high = (int(k) for k in stats.binom.ppf([0.005, 0.995], len(ordered), 0.5))
    spread = max(ordered[high] - np.median(ordered), np.median(ordered) - ordered[low])
    return float(np.median(ordered)), float(spread) + figure.slack * figure.published, len(ordered)


def uncertified(figure: Figure, mine: Subject) -> tuple[float, float, int]:
    """Share of all samples that the dual network's bound does not prove, in per cent.

    The authors' bound (parallel lines, linear bounds at every layer), on a ball that ours also cuts with [0,1].
    """
    images, labels, ids = mine.data.batch(slice(None))
    bound = Crown.model_validate({"norm": "linf", "eps": "0.1", "slope": "parallel", "intermediate": "backward"})
    verdicts = bound.certify(mine.classifier, images, labels, Randomness.of(0, ids, "conformance")).verdict
    return 100 * float((verdicts != VERIFIED).float().mean()), tolerance(figure.published, len(labels)), len(labels)


def tolerance(published: float, n: int) -> float:
    """Half of the 99 % binomial interval of n samples around a published share, and of its last printed digit."""
    share = published / 100
    low, high = stats.binom.ppf([0.005, 0.995], n, share) / n
    return 100 * max(high - share, share - low) + 0.05


def row(name: str, figure: Figure, mine: Subject) -> dict[str, Any]:
    """One line of the page."""
    ours, allowed, n = measured(figure, mine)
    within = abs(ours - figure.published) <= allowed
    smaller = figure.measure == "median" and ours < figure.published
    return {
        "network": name, "figure": figure.what, "published": figure.published, "ours": ours, "tolerance": allowed,
        "n": n, "within": bool(within), "explained": figure.why if not within and (smaller or figure.why) else "",
    }  # fmt: skip


def page(rows: list[dict[str, Any]], expectations: dict[str, str], samples: int) -> str:
    """docs/conformance.md."""
    lines = [
        "# Conformance",
        "",
        "Networks that others trained and published, evaluated here; regenerated by",
        f"`python benchmarks/conformance.py --samples {samples}`.",
        "",
        "A share counts as equal within the 99 % binomial interval of the samples behind it, plus half a unit of the",
        "last digit published; a median distance within its 99 % interval plus 10 %. `n` are the first samples of the",
        "test set's fixed shuffle; distances are medians over those that are classified correctly.",
    ]
    for name, expectation in expectations.items():
        lines += ["", f"## {name}", "", f"Inputs, confirmed by the probe: {expectation}.", ""]
        lines += ["| figure | published | ours | tolerance | n | |", "|---|---|---|---|---|---|"]
        for r in (r for r in rows if r["network"] == name):
            verdict = "within" if r["within"] else r["explained"] or "**outside**"
            figures = f"{r['published']:g} | {r['ours']:.4g} | ± {r['tolerance']:.2g} | {r['n']}"
            lines.append(f"| {r['figure']} | {figures} | {verdict} |")
    return "\n".join(lines) + "\n"


def on_record(samples: int) -> dict[str, Any]:
    """What an earlier run over as many samples wrote.

    Raises:
        SystemExit: if there is none; the remedy is a run without --net.
    """
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if found.get("samples") != samples:
        sys.exit(f"{RESULTS.name} holds no run over {samples} samples: leave out --net, or give its own --samples")
    return dict(found)


def main(show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument(
        "--net", action="append", choices=list(FIGURES), help="only these networks; the others are kept"
    )
    samples = (options := parser.parse_args()).samples
    record = on_record(samples) if options.net else {"rows": [], "inputs": {}}
    rows: list[dict[str, Any]] = []
    expectations: dict[str, str] = {}
    for name, figures in FIGURES.items():
        if options.net and name not in options.net:
            rows += [old for old in record["rows"] if old["network"] == name]
            expectations |= {name: record["inputs"][name]} if name in record["inputs"] else {}
            continue
        if not path_of(name).is_file():
            show(f"{name}: left out")
            continue
        mine = subject(name, samples)
        seen = mine.found
        expectations[name] = f"{seen.preparation.described()}; {100 * seen.accuracy:.1f} % of {seen.n} right"
        for figure in figures:
            rows.append(row(name, figure, mine))
            show(json.dumps(rows[-1]))
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    record = {"samples": samples, "inputs": expectations, "rows": rows}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(rows, expectations, samples), encoding="utf-8")
    return 0 if all(r["within"] or r["explained"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
