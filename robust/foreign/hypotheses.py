"""Hypotheses about a network, by kind: range with channel order, layout, size, and which output is which class.

Each kind proposes the best of its hypotheses, as the steps that lead from the one before. They are ranked on the
searching samples alone; `robust.foreign.probe` makes every step prove itself on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust.foreign import findings, shapes
from robust.foreign.bench import Bench, better
from robust.foreign.columns import Matching, best_assignment, matchings
from robust.foreign.loaded import ForeignError
from robust.foreign.normalisations import PLAIN, Normalisation, candidates
from robust.foreign.preparation import Preparation

CLOSE_CALL = 0.05  # one-sided p above which a hypothesis is not worse than the best
NEIGHBOURS = 8  # hypotheses that are near one another and may all be nearly right, such as the usual normalisations
SEES = 0.4  # accuracy below which another order of the classes explains nothing
PICKED = 0.6  # the same where the classes' outputs are picked from more: those of an untrained network reached 0.5
TIMES_CHANCE = 10  # with more than 25 classes a network that is this much better than guessing sees


@dataclass(frozen=True)
class Declared:
    """What the user says about the network; the rest is found out.

    Attributes:
        mean, std: normalisation to apply before the network.
        classes: the data's class names in the order of the network's outputs.
        channels_last, bgr: layout and channel order.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def normalisation(self) -> Normalisation:
        """The declared one, or none."""
        return Normalisation("the declared", self.mean, self.std) if self.std else PLAIN

    def columns(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Output of each of the data's classes; empty where nothing is declared.

        Raises:
            ForeignError: if a class is missing.
        """
        missing = set(classes) - set(self.classes)
        if self.classes and missing:
            raise ForeignError(f"--classes lacks {', '.join(sorted(missing)[:5])}; name every class of the data")
        return tuple(self.classes.index(name) for name in classes) if self.classes else ()


@dataclass(frozen=True)
class Step:
    """One correction: what it changes from the hypothesis before, and what to say about it."""

    change: dict[str, Any]
    undo: dict[str, Any]
    words: tuple[str, str, str]


def scalings(bench: Bench, best: Preparation, declared: Declared) -> list[Step]:
    """Range and normalisation, together with channel order and colour, since each spoils the search for the other."""
    own = bench.data.inputs()
    channels = best.shape[0]
    given = declared.normalisation
    repeated = len(own.mean) == channels
    measured = Normalisation("the data's own", own.mean, own.std) if repeated else PLAIN
    options: list[tuple[Normalisation, dict[str, Any]]] = []
    far: list[int] = []
    for normalisation in candidates(channels, measured, given):
        change = {"mean": normalisation.mean, "std": normalisation.std}
        step = 0 if normalisation == given else 1 if normalisation == PLAIN else 2
        options.append((normalisation, change))
        far.append(step)
        if channels == 3 and bench.data.shape[0] == 3:
            options += [(normalisation, {**change, "bgr": True}), (normalisation, {**change, "grey": True})]
            far += [step + 3, step + 3]
    ranked = _ranked(bench, [best.model_copy(update=change) for _, change in options], far)
    chosen, change = options[ranked[0]]
    alike = [options[i][0].name for i in ranked[1:] if not {"bgr", "grey"} & options[i][1].keys()]
    steps = []
    if chosen != given:
        undo = {"mean": best.mean, "std": best.std}
        steps.append(Step({k: change[k] for k in undo}, undo, findings.scaling(given, chosen, alike)))
    if change.get("bgr"):
        words = ("BGR", "the network wants blue first", "evaluated so; swap the channels before or inside the model")
        steps.append(Step({"bgr": True}, {"bgr": False}, words))
    if change.get("grey"):
        words = ("grey for colour", "the network was trained on grey images", "evaluated on the luma in every channel")
        steps.append(Step({"grey": True}, {"grey": False}, words))
    return steps


def layouts(bench: Bench, best: Preparation, declared: Declared) -> list[Step]:
    """The other layout, where the network takes both."""
    other = best.model_copy(update={"channels_last": not best.channels_last})
    if not isinstance(bench.raw(other), Tensor) or _ranked(bench, [best, other])[0] == 0:
        return []
    words = ("HWC", "the network wants [N,H,W,C]", "evaluated so; permute the axes inside the model")
    return [Step({"channels_last": other.channels_last}, {"channels_last": best.channels_last}, words)]


def sizes(bench: Bench, best: Preparation, declared: Declared) -> list[Step]:
    """Another size, where the network takes several."""
    options = [best, *shapes.other_sizes(bench, best)]
    chosen = options[_ranked(bench, options)[0]]
    if chosen == best:
        return []
    words = shapes.resized(best.shape, chosen.shape)
    return [Step({"shape": chosen.shape}, {"shape": best.shape}, words)]


def orders(bench: Bench, best: Preparation, declared: Declared) -> list[Step]:
    """Which output is which class; a network with fewer outputs than classes is refused, with the class named."""
    if best.answer == "labels":
        return []
    logits, labels = bench.answer(best, "search")
    classes, names = best.num_classes, bench.data.classes
    if logits.shape[1] < classes:
        places = best_assignment(logits, labels, classes)
        matched = logits.argmax(1) == torch.tensor(places)[labels]
        if not sees(matched, classes, logits.shape[1]):
            raise ForeignError(findings.guessing(logits.argmax(1) == labels, labels))
        without = ", ".join(name for name, place in zip(names, places) if place < 0)
        raise ForeignError(
            f"missing class: the network has {logits.shape[1]} outputs, the data have {classes} classes; no output "
            f"answers to {without}: leave these images out, or take the network that was trained on all classes"
        )
    given = Matching("", best.columns) if best.columns else Matching("", tuple(range(classes)))
    options = [given, *matchings(logits, labels, classes)]
    rights = [float((logits[:, list(m.columns)].argmax(1) == labels).float().mean()) for m in options]
    if logits.shape[1] == classes and rights[-1] < SEES:  # an untrained network's outputs go with some classes too
        options, rights = options[:1], rights[:1]
    chosen = options[rights.index(max(rights))]
    if chosen.columns == given.columns and logits.shape[1] == classes:
        return []
    if chosen.columns == tuple(range(classes)) and not best.columns:
        evidence = f"it has {logits.shape[1]} outputs for the data's {classes} classes; the first {classes} are theirs"
        words = ("missing class", evidence, "evaluated on these outputs alone")
    else:
        words = findings.placing(chosen.name or "class order", chosen.columns, names, logits.shape[1])
    return [Step({"columns": chosen.columns}, {"columns": given.columns}, words)]


def sees(matched: Tensor, classes: int, outputs: int) -> bool:
    """Whether so many right, [n] bool, under outputs matched to classes by their own answers, mean more than luck."""
    needed = PICKED if outputs > classes else SEES
    return float(matched.float().mean()) >= min(needed, TIMES_CHANCE / classes)


def _ranked(bench: Bench, options: Sequence[Preparation], departures: Sequence[int] | None = None) -> list[int]:
    """Positions of the best hypothesis and of those that do about as well: all on a few samples, a few on more.

    `departures` says how far each departs from what was given (by default only the first does not). The nearest that
    is not clearly worse than the best is taken, so that noise names no mistake. Of equally near ones it is the one
    under which the labels are likeliest: neighbouring normalisations get the same images right, while only the one
    that the network was trained with is also as sure of them.
    """
    far = list(departures) if departures is not None else [0] + [1] * (len(options) - 1)
    kept = list(range(len(options)))
    if len(kept) > 4:
        few = {i: bench.outcome(options[i], "first") for i in kept}
        ranked = sorted(kept, key=lambda i: (-few[i].accuracy, far[i], -few[i].likelihood, i))
        likely = sorted(kept, key=lambda i: -few[i].likelihood)
        kept = sorted({0, *ranked[:4], *likely[:NEIGHBOURS]})
    found = {i: bench.outcome(options[i], "search") for i in kept}
    ranked = sorted(kept, key=lambda i: (-found[i].accuracy, -found[i].likelihood, i))
    best = found[ranked[0]]
    nearly = [i for i in ranked if better(best.right, found[i].right) > CLOSE_CALL]
    return sorted(nearly, key=lambda i: (far[i], -found[i].likelihood))
