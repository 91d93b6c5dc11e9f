"""Gates on one number: `linf 8/255 >= 45%` as a condition that a command or a test suite can hold a model to.

`assert_robust` is the same for a test suite: it evaluates, and fails the test with the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust.gates import GateError
from robust.method import exact, fraction_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust.datasets.dataset import Dataset
    from robust.evaluation import Ledger

PATTERN = re.compile(r"(clean|linf|l2|l1)(?:\s+([\d./]+))?\s*(>=|>)\s*([\d.]+)\s*(%?)")


@dataclass(frozen=True)
class Gate:
    """One condition: `clean >= 90%`, `linf 8/255 >= 45%`, `l2 0.5 > 0.6`.

    Attributes:
        norm: of the threat; "" for clean accuracy.
        eps: of the threat; None for clean accuracy.
        least: the fraction to reach; strict: to exceed.
    """

    norm: str
    eps: Fraction | None
    least: Fraction
    strict: bool = False

    @classmethod
    def parse(cls, text: str) -> list[Gate]:
        """The gates of an expression; several are joined by commas or `and`.

        Raises:
            GateError: naming the part that is wrong, with an example.
        """
        return [cls._one(part.strip()) for part in re.split(r",|\band\b", text)]

    @classmethod
    def _one(cls, text: str) -> Gate:
        found = PATTERN.fullmatch(text)
        if not found or (found[1] == "clean") != (found[2] is None):
            raise GateError(f"--gate {text!r}: write for example 'linf 8/255 >= 45%' or 'clean >= 90%'")
        try:
            eps = None if found[2] is None else exact(found[2])
            least = exact(found[4]) / (100 if found[5] else 1)
        except ValueError as error:
            raise GateError(f"--gate {text!r}: {error}") from None
        if least > 1:
            raise GateError(f"--gate {text!r}: an accuracy is at most 1; write {found[4]}% for per cent")
        return cls("" if found[1] == "clean" else found[1], eps, least, found[3] == ">")

    def __str__(self) -> str:
        what = f"{self.norm} {fraction_text(self.eps)}" if self.eps is not None else "clean"
        return f"{what} {'>' if self.strict else '>='} {100 * float(self.least):g}%"

    def ruling(self, rows: Iterable[Mapping[str, Any]]) -> Ruling:
        """Whether rows `{norm, eps, accuracy, low, high, verdict}` meet it: the lowest of its threat counts.

        A number whose verdict is `broken` meets no gate: a stronger attack is known to leave less.

        Raises:
            GateError: if no row is about its threat.
        """
        mine = [row for row in rows if self._about(row)]
        if not mine:
            raise GateError(f"--gate '{self}': no evaluation of this kind was made")
        row = min(mine, key=lambda row: row["accuracy"])
        share = Fraction(int(row["correct"]), int(row["n"])) if row.get("n") else exact(float(row["accuracy"]))
        reached = share > self.least if self.strict else share >= self.least
        broken = self.norm != "" and row["verdict"] == "broken"
        found = f"{100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        return Ruling(str(self), reached and not broken, f"{found}{', broken' if broken else ''}")

    def _about(self, row: Mapping[str, Any]) -> bool:
        if not self.norm:
            return bool(row["name"] == "clean")
        return bool(row["norm"] == self.norm and row["eps"] is not None and exact(row["eps"]) == self.eps)


@dataclass(frozen=True)
class Ruling:
    """What became of a gate."""

    gate: str
    met: bool
    found: str

    def __str__(self) -> str:
        return f"gate {self.gate}: {'met' if self.met else 'NOT met'}, {self.found}"


def assert_robust(
    model: str | nn.Module,
    data: str | Dataset | tuple[Tensor, Tensor],
    gate: str,
    *,
    attacks: Sequence[str | dict[str, Any]] = ("autoattack",),
    samples: int | None = None,
    seed: int = 0,
    folder: str | Path = ".",
) -> Ledger:
    """Evaluate a model and fail unless it meets the gate; for test suites.

    Args:
        model: a MODEL string as `robust evaluate` takes it (then what it expects is found out), or a module that takes
            images in [0,1] and returns logits.
        data: the name of a data set, a folder of images, a `Dataset`, or images [N,C,H,W] in [0,1] and labels [N].
        gate: `linf 8/255 >= 45%`, `clean >= 90%`, or several with commas.
        attacks: names or settings, each run at every threat that the gate names.
        samples: how many; all when None.
        seed: keys the attacks' draws.
        folder: where a MODEL string is looked for.

    Returns:
        The ledger, for further assertions.

    Raises:
        AssertionError: with the numbers, if a gate is not met.
    """
    from robust.classifier import Classifier
    from robust.evaluation import evaluate
    from robust.foreign.request import evaluations_of
    from robust.streaming import evaluate_dataset

    gates = Gate.parse(gate)
    threats = list(dict.fromkeys((g.norm, g.eps) for g in gates if g.eps is not None))
    methods = list(evaluations_of(attacks, threats).values())
    known: Dataset | tuple[Tensor, Tensor] = data if isinstance(data, tuple) else _dataset(data, samples)
    if isinstance(model, str):
        if isinstance(data, tuple):
            raise TypeError("a MODEL string needs a data set, by name, folder or as a Dataset, to find out what it is")
        # what it expects is found out on all that there is: few images make for a guess
        model, whole = _examined(model, _dataset(data, None), folder)
        known = whole.subset(slice(0, samples))
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    if isinstance(known, tuple):
        images, labels = known[0][:samples], known[1][:samples]
        found = evaluate(classifier, images, labels, methods, seed=seed)
    else:
        found = evaluate_dataset(classifier, known, methods, seed=seed)
    rulings = [g.ruling(found.summary().to_dict("records")) for g in gates]  # type: ignore[arg-type]
    if not all(ruling.met for ruling in rulings):
        raise AssertionError("; ".join(map(str, rulings)))
    return found


def _dataset(data: str | Dataset, samples: int | None) -> Dataset:
    from robust.foreign.request import dataset_of

    known = dataset_of(data, "test", samples).load("test") if isinstance(data, str) else data
    return known.subset(slice(0, samples))


def _examined(model: str, data: Dataset, folder: str | Path) -> tuple[nn.Module, Dataset]:
    from robust.datasets.adapt import adapt
    from robust.foreign.loaded import Source
    from robust.foreign.loading import load
    from robust.foreign.preparation import prepared
    from robust.foreign.probe import examine

    loaded = load(Source.of(model, folder))
    preparation = examine(loaded, data).preparation
    return prepared(loaded.module, preparation), adapt(data, preparation.shape)
