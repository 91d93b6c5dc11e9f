"""Loops in the forward pass: solvers, purification, refinement; found by counting, refined by copying.

A part with weights that runs more than once in a forward pass is a loop; one that runs a number of times which depends
on the image is adaptive. Step sizes and tolerances are settings of the modules: a copy with finer ones shows whether
the numbers depend on them, and a copy with a fixed-step solver gives a gradient that no step control disturbs.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.diagnostics.verdict import Check

TOLERANCES = ("rtol", "atol", "tol", "tolerance")
STEP_SIZES = ("step_size", "dt")
ADAPTIVE = ("dopri8", "dopri5", "tsit5", "bosh3", "fehlberg2", "adaptive_heun")  # torchdiffeq's names
COARSE = 0.05  # share of predictions that finer steps may change
SINGLES = 6  # samples whose runs are counted one by one


def counted(classifier: Classifier, images: Tensor) -> tuple[int, bool]:
    """Most runs of one part with weights in a forward pass, and whether that number differs between images."""
    totals = [_most_runs(classifier, images[[row, row]]) for row in range(min(SINGLES, len(images)))]
    return max(totals, default=1), len(set(totals)) > 1


def _most_runs(classifier: Classifier, pair: Tensor) -> int:
    """Runs of the busiest part; two copies of one image, because batch statistics refuse a batch of one."""
    counts: Counter[nn.Module] = Counter()

    def count(module: nn.Module, *_: object) -> None:
        counts[module] += 1

    # a TorchScript module takes no hooks: what it repeats inside cannot be counted
    plain = [m for m in classifier.module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    parts = [m for m in plain if any(True for _ in m.parameters(recurse=False))]
    handles = [part.register_forward_hook(count) for part in parts]
    try:
        with torch.no_grad():
            classifier(pair)
    finally:
        for handle in handles:
            handle.remove()
    return max(counts.values(), default=1)


def refined(classifier: Classifier) -> Iterator[tuple[str, Classifier]]:
    """Copies with other solver settings, and what was changed in words; none where no module has such settings."""
    for words, change in (("tolerances / 100", _tighter), ("step size / 4", _shorter), ("a fixed-step solver", _fixed)):
        twin = copy.deepcopy(classifier)
        if sum(change(module) for module in twin.modules()):
            yield words, twin


def _tighter(module: nn.Module) -> bool:
    return _scale(module, TOLERANCES, 0.01)


def _shorter(module: nn.Module) -> bool:
    options = vars(module).get("options")
    inside = isinstance(options, dict) and isinstance(options.get("step_size"), float)
    if isinstance(options, dict) and inside:
        vars(module)["options"] = {**options, "step_size": options["step_size"] / 4}
    return _scale(module, STEP_SIZES, 0.25) or inside


def _fixed(module: nn.Module) -> bool:
    found = [name for name, value in vars(module).items() if isinstance(value, str) and value in ADAPTIVE]
    for name in found:
        setattr(module, name, "rk4")
    return bool(found)


def _names_adaptive(classifier: Classifier) -> bool:
    return any(value in ADAPTIVE for m in classifier.modules() for value in vars(m).values() if isinstance(value, str))


def _scale(module: nn.Module, names: tuple[str, ...], factor: float) -> bool:
    found = [name for name in names if isinstance(vars(module).get(name), float) and vars(module)[name] > 0]
    for name in found:
        setattr(module, name, vars(module)[name] * factor)
    return bool(found)


def checks(classifier: Classifier, images: Tensor, shared: bool, model: str) -> list[Check]:
    """Whether there is a loop, whether it adapts, and whether its step sizes matter.

    Args:
        shared: logits depend on the batch; in a loop that is the mark of a step control over the whole batch.
    """
    runs, differs = counted(classifier, images)
    adaptive = differs or (runs > 1 and shared) or _names_adaptive(classifier)
    with torch.no_grad():
        before = classifier(images).argmax(1)
        moved = {
            words: float((twin(images).argmax(1) != before).double().mean()) for words, twin in refined(classifier)
        }
    worst = max(moved, key=lambda words: moved[words], default="")
    return [
        Check(
            model, "", "a fixed number of steps", not adaptive, float(runs), 1.0,
            f"the forward pass is a loop (one part runs up to {runs} times) whose steps depend on the images: an "
            "adaptive solver's step control hides the gradient; attack through a fixed-step copy (substitute) as well",
            scope="own gradient",
        ),
        Check(
            model, "", "step sizes", max(moved.values(), default=0.0) <= COARSE, moved.get(worst, 0.0), COARSE,
            f"with {worst}, {100 * moved.get(worst, 0.0):.0f} % of the predictions change: the solver is "
            "too coarse for its answer to be the model's",
        ),
    ]  # fmt: skip
