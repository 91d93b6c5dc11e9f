"""An attack inside a certificate stops everything: planted here in ledgers and in an evaluation."""

from fractions import Fraction

import pandas as pd
import pytest
import torch
from torch import nn

from robust import evaluation, judging, ledger
from robust.attacks.pgd import PGD
from robust.certificates.contradiction import Contradiction, contradictions, refuse
from robust.classifier import Classifier
from robust.threat import ThreatModel

THREATS = {
    "interval": ThreatModel(norm="linf", eps=Fraction(1, 10)),
    "pgd": ThreatModel(norm="linf", eps=Fraction(1, 5)),
    "pgd-l2": ThreatModel(norm="l2", eps=Fraction(1)),
    "l2-proof": ThreatModel(norm="l2", eps=Fraction(1, 10)),
}


def row(label: str, sample: int = 0, **columns: object) -> dict[str, object]:
    return {"model": "m", "seed": 0, "evaluation": label, "sample": sample, **columns}


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    return ledger.table(pd.DataFrame(rows)).to_pandas()


PROOF = row("interval", certificate="verified", radius=0.1)


@pytest.mark.parametrize(
    ("proof", "attacked", "expected"),
    [
        (PROOF, row("pgd", success=True, distance=0.1), 1),
        (PROOF, row("pgd", success=True, distance=0.1001), 0),
        (PROOF, row("pgd", success=False, distance=float("inf")), 0),
        (PROOF, row("pgd", sample=1, success=True, distance=0.05), 0),
        (PROOF, {**row("pgd", success=True, distance=0.05), "model": "another"}, 0),
        (PROOF, row("pgd-l2", success=True, distance=0.09), 1),  # an l2 ball lies in the linf ball
        (row("l2-proof", certificate="verified", radius=0.1), row("pgd", success=True, distance=0.09), 0),
        (row("interval", certificate="unknown", radius=0.0), row("pgd", success=True, distance=0.0), 0),
        (row("interval", certificate="falsified", radius=0.0), row("pgd", success=True, distance=0.0), 0),
        (row("pgd-l2", certificate="verified", radius=0.5), row("l2-proof", success=True, distance=0.5), 1),
    ],
)
def test_a_pair_contradicts_iff_the_image_lies_inside_the_proof(proof, attacked, expected):
    assert len(contradictions(frame(proof, attacked), THREATS)) == expected


def test_the_message_names_the_first_pair():
    rows = frame(PROOF, row("pgd", success=True, distance=0.05), row("clean", correct=False))
    with pytest.raises(Contradiction, match=r"pgd .* sample 0 of m at linf distance 0.05, inside the radius 0.1"):
        refuse(rows, THREATS)
    refuse(rows[rows["evaluation"] != "pgd"], THREATS)


def test_an_evaluation_with_a_lying_bound_is_stopped(monkeypatch):
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    images = torch.rand(40, 1, 4, 4)
    labels = net(images).argmax(1)
    first, second = PGD(eps="1/5", steps=20), PGD(eps="1/5", steps=21)

    def lie(classifier, shape, attack):  # everything is proven, but only where the first attack asks
        return (lambda x, y: torch.ones_like(y, dtype=torch.bool)) if attack is first else None

    monkeypatch.setattr(judging, "screen_for", lie)
    with pytest.raises(Contradiction):
        evaluation.evaluate(net, images, labels, [first, second])
