"""AutoAttack: the published ensemble of parameter-free attacks, as a cascade on the samples still standing."""

from __future__ import annotations

import logging
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.apgd_ce import APGDCE
from robust.attacks.apgd_dlr import APGDDLR
from robust.attacks.apgd_t import APGDT
from robust.attacks.attack import Attack, FixedBudget, SmallestDistance, broadcast, fooled
from robust.attacks.fab import FAB
from robust.attacks.fab_t import FABT
from robust.attacks.square import Square
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness

logger = logging.getLogger("robust.attacks.autoattack")


class AutoAttack(FixedBudget):
    """AutoAttack: APGD-CE, APGD-T, FAB-T and Square in the published order and budgets, each on the survivors.

    Croce & Hein 2020, arXiv 2003.01690; l1 as in arXiv 2103.01208. Versions:

    - `standard`: apgd-ce 100 steps (l1: 5 restarts), apgd-t 9 targets x 100 (l1: 5 targets), fab-t 9 targets x 100,
      square 5,000 queries.
    - `plus`: apgd-ce 5 restarts, apgd-dlr 5 restarts, fab 5 restarts, square 5,000, apgd-t 9 targets, fab-t 9 targets.
    - `rand`: apgd-ce and apgd-dlr with gradients averaged over 20 draws, for models that are random by design.

    With K classes there are K - 1 targets where that is fewer. Where the DLR losses are undefined the margin takes
    their place (apgd-t below 4 classes; at K = 2 apgd-t stands in for apgd-dlr), and the log says so.
    """

    name: ClassVar[str] = "autoattack"
    family: ClassVar[str] = "ensemble"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"

    version: Literal["standard", "plus", "rand"] = Field(default="standard", description="which published ensemble")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; each member draws from rng.fork(its name)."""
        survivors = Survivors(classifier, images, labels, rng)
        if not len(survivors):
            return survivors.best
        for member in self.members(_num_classes(classifier, images)):
            if not len(survivors):
                break
            found = _run(member, survivors)
            inside = self.threat.contains(found, survivors.origin)
            found = torch.where(broadcast(inside, found), found, survivors.origin)
            with torch.no_grad():
                logits = survivors.classifier(found)
            survivors.offer(found, margin(logits, survivors.labels))
            survivors.fell(inside & fooled(logits, survivors.labels), found)
            logger.debug("after %s %d of %d stand", member.name, len(survivors), len(labels))
        return survivors.best

    def members(self, num_classes: int) -> list[Attack]:
        """The attacks of this version in their order, with their budgets, for a model with K classes."""
        threat, l1 = self.threat, self.threat.norm == "l1"
        targeted = APGDT(threat=threat, targets=5 if l1 and self.version == "standard" else 9)
        if num_classes < 4:
            logger.info("%d classes: the targeted DLR loss is undefined, apgd-t uses the margin", num_classes)
        if self.version == "standard":
            ce = APGDCE(threat=threat, restarts=5 if l1 else 1)
            return [ce, targeted, FABT(threat=threat), Square(threat=threat)]
        repeats, draws = (5, 1) if self.version == "plus" else (1, 20)
        ratio: Attack = APGDDLR(threat=threat, restarts=repeats, eot=draws)
        if num_classes < 3:
            logger.info("2 classes: the DLR loss is undefined, apgd-t on the margin stands in for apgd-dlr")
            ratio = APGDT(threat=threat, restarts=repeats, eot=draws)
        first: list[Attack] = [APGDCE(threat=threat, restarts=repeats, eot=draws), ratio]
        if self.version == "rand":
            return first
        return [*first, FAB(threat=threat, restarts=5), Square(threat=threat), targeted, FABT(threat=threat)]

    def passes(self, num_classes: int) -> tuple[int, int]:
        """The sum over the members, for a sample that withstands them all, and one look after each."""
        members = self.members(num_classes)
        costs = [member.passes(num_classes) for member in members]
        return (sum(forward for forward, _ in costs) + len(members), sum(backward for _, backward in costs))


def _run(member: Attack, survivors: Survivors) -> Tensor:
    args = (survivors.classifier, survivors.origin, survivors.labels, survivors.rng.fork(member.name))
    if isinstance(member, SmallestDistance):
        return member.minimise(*args)
    if isinstance(member, FixedBudget):
        return member.perturb(*args)
    raise TypeError(f"{member.name} is neither a fixed-budget nor a smallest-distance attack")


def _num_classes(classifier: Classifier, images: Tensor) -> int:
    if classifier.num_classes is not None:
        return classifier.num_classes
    with torch.no_grad():
        return int(classifier(images).shape[1])
