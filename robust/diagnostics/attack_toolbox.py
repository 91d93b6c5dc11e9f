"""Attack toolbox: the error curves of many attacks on one network, their envelope, and where they cross."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from robust.attacks.attack import Attack
from robust.attacks.binary_search import BinarySearch
from robust.attacks.boundary import Boundary
from robust.attacks.cw import CW
from robust.attacks.ddn import DDN
from robust.attacks.deepfool import DeepFool
from robust.attacks.fgsm import FGSM
from robust.attacks.fmn import FMN
from robust.attacks.pgd import PGD
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.judging import judge
from robust.statistics import bootstrap
from robust.threat import ThreatModel

Norm = Literal["l2", "linf"]
GRID = 61  # sizes of a curve


class AttackToolbox(Diagnostic):
    """% error against adversarial size for each attack of a toolbox, the envelope over all, and every crossing.

    The figure of Oberman 2018 (slides on arXiv 1810.00953) that asks which attack is strongest, and whether at every
    size. Smallest distances by FGSM and PGD with a bisected radius (margin loss, so that a saturated softmax hides
    nothing), DDN (margin), FMN, DeepFool, Carlini-Wagner and the boundary attack. An image that is misclassified
    as it is has distance 0, one that an attack fails on infinity.

    Rows: `median-distance` (of: the attack; 95 % bootstrap), `finds-nearest` (share of images on which the attack
    comes within 1 % of the smallest distance of all), `failures` (share), `crossing` (of: "a, then b": up to the size
    `value` a has the larger error, from there on b, by more than `tolerance` each) for every pair that crosses.
    One figure: the curves and their envelope.
    """

    name: ClassVar[str] = "attack-toolbox"
    family: ClassVar[str] = "attack strength"
    source: ClassVar[str] = "arXiv 1810.00953"

    norm: Norm = Field(default="l2", description="norm of the distances: l2 or linf")
    attacks: tuple[str, ...] = Field(
        default=("fgsm", "pgd", "ddn", "deepfool", "cw", "boundary"),
        min_length=1,
        description="of fgsm, pgd, ddn, fmn, deepfool, cw, boundary; those without this norm are left out",
    )
    largest: float = Field(default=10.0, gt=0, description="largest radius that fgsm and pgd try; at most 1 for linf")
    samples: int = Field(default=100, ge=1, description="test images, the first ones")
    steps: int = Field(default=40, ge=1, description="PGD steps; ddn, fmn and cw take 100 at least")
    queries: int = Field(default=1000, ge=1, description="steps of the boundary attack")
    tolerance: float = Field(default=0.02, ge=0, lt=1, description="difference of errors that counts as an order")

    @field_validator("attacks")
    @classmethod
    def _known(cls, attacks: tuple[str, ...]) -> tuple[str, ...]:
        known = {"fgsm", "pgd", "ddn", "fmn", "deepfool", "cw", "boundary"}
        strange = [name for name in attacks if name not in known]
        if strange:
            raise ValueError(f"attacks: {strange[0]!r} is not in the toolbox; choose from {', '.join(sorted(known))}")
        return attacks

    def toolbox(self) -> dict[str, Attack]:
        """The chosen attacks that work in this norm."""
        free = ThreatModel(norm=self.norm)
        top = Fraction(self.largest).limit_denominator(1000)
        ball = ThreatModel(norm=self.norm, eps=min(top, Fraction(1)) if self.norm == "linf" else top)
        steps = max(100, self.steps)
        makers = {
            "fgsm": lambda: BinarySearch(attack=FGSM(threat=ball, loss="margin"), halvings=10),
            "pgd": lambda: BinarySearch(attack=PGD(threat=ball, loss="margin", steps=self.steps), halvings=10),
            "ddn": lambda: DDN(threat=free, loss="margin", steps=steps),
            "fmn": lambda: FMN(threat=free, steps=steps),
            "deepfool": lambda: DeepFool(threat=free),
            "cw": lambda: CW(threat=free, steps=steps),
            "boundary": lambda: Boundary(threat=free, steps=self.queries),
        }
        norms = {
            "ddn": DDN.norms,
            "fmn": FMN.norms,
            "deepfool": DeepFool.norms,
            "cw": CW.norms,
            "boundary": Boundary.norms,
        }
        return {name: makers[name]() for name in self.attacks if self.norm in norms.get(name, (self.norm,))}

    def measure(self, subject: Subject) -> Measured:
        """Every attack on the same images."""
        images, labels, ids = subject.test.batch(slice(0, self.samples))
        distances = {}
        for name, attack in self.toolbox().items():
            judged = judge(subject.classifier, images, labels, ids, attack, subject.seed, certify_first=False)
            own = judged.rows["distance"].to_numpy(float)
            distances[name] = np.where(judged.rows["success"].to_numpy(bool), own, np.inf)
        nearest = np.min(np.stack(list(distances.values())), axis=0)
        sizes = _sizes(distances)
        curves = {name: error_curve(own, sizes) for name, own in distances.items()}
        rows = [row for name, own in distances.items() for row in _rows(name, own, nearest)]
        rows += [*_rows("envelope", nearest, nearest)[:1], *crossings(curves, sizes, self.tolerance)]
        series = [{"label": name, "x": sizes.tolist(), "y": (100 * curve).tolist()} for name, curve in curves.items()]
        envelope = {"label": "envelope", "x": sizes.tolist(), "y": (100 * error_curve(nearest, sizes)).tolist()}
        figure = {
            "id": "attack-toolbox",
            "paper": "T-2",
            "title": f"% error against {self.norm} size, attack by attack",
            "caption": f"Share of the first {len(labels)} test images misclassified within the size; envelope: by any.",
            "x_label": f"size ({self.norm})",
            "y_label": "% error",
            "y_range": (0.0, 100.0),
            "series": [*series, envelope],
        }
        return Measured(rows, [figure])


def error_curve(distances: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Share of distances [N] that are at most each size [S]."""
    return (distances[None] <= sizes[:, None]).mean(1)


def crossings(curves: dict[str, np.ndarray], sizes: np.ndarray, tolerance: float) -> list[Row]:
    """A row for each size from which on another attack of a pair has the larger error, by more than the tolerance."""
    rows = []
    for first, second in itertools.combinations(curves, 2):
        ahead = curves[first] - curves[second]
        places = np.flatnonzero(np.abs(ahead) > tolerance)
        for before, after in itertools.pairwise(places):
            if ahead[before] * ahead[after] < 0:
                order = (first, second) if ahead[before] > 0 else (second, first)
                rows.append(
                    {"quantity": "crossing", "of": f"{order[0]}, then {order[1]}", "value": float(sizes[after])}
                )
    return rows


def _sizes(distances: dict[str, np.ndarray]) -> np.ndarray:
    """From 0 to where nearly every attack has done what it will."""
    finite = [own[np.isfinite(own)] for own in distances.values()]
    tails = [float(np.quantile(own, 0.95)) for own in finite if len(own)]
    return np.linspace(0.0, max(tails, default=0.0) or 1.0, GRID)


def _rows(name: str, own: np.ndarray, nearest: np.ndarray) -> list[Row]:
    middle = bootstrap(lambda drawn: float(np.median(drawn)), own)
    finite = {key: value if np.isfinite(value) else None for key, value in middle._asdict().items()}
    limits = {"low": finite["low"], "high": finite["high"]}
    with np.errstate(invalid="ignore"):
        near = np.isfinite(own) & (own <= 1.01 * nearest)
    return [
        {"quantity": "median-distance", "of": name, "value": finite["estimate"], "n": len(own), **limits},
        {"quantity": "finds-nearest", "of": name, "value": float(near.mean()), "n": len(own)},
        {"quantity": "failures", "of": name, "value": float(np.isinf(own).mean()), "n": len(own)},
    ]
