"""How measured checks meet evaluations, and what a diagnosis leaves behind."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from torch import nn

from robust.attacks.apgd_dlr import APGDDLR
from robust.attacks.bpda import BPDA
from robust.attacks.eot import EOT
from robust.attacks.fgsm import FGSM
from robust.attacks.pgd import PGD
from robust.attacks.square import Square
from robust.classifier import Classifier
from robust.corruptions import Clean
from robust.diagnostics.masking import Diagnosis, contradictions, diagnose
from robust.diagnostics.verdict import Check, applies, attached, ledger_checks, verdict_for
from robust.threat import ThreatModel

LINF = ThreatModel(norm="linf", eps="1/10")


def failed(scope, threat="", severity="suspect"):
    return Check("m", "", "c", False, 1.0, 0.0, "because", severity, threat, scope)


@pytest.mark.parametrize(
    ("scope", "speaks_about"),
    [
        ("any", {"ce", "dlr", "bpda", "eot", "square", "fgsm"}),
        ("gradient", {"ce", "dlr", "bpda", "eot", "fgsm"}),
        ("cross-entropy", {"ce", "bpda", "eot", "fgsm"}),
        ("own gradient", {"ce", "dlr", "eot", "fgsm"}),
        ("single draw", {"ce", "dlr", "bpda", "fgsm"}),
    ],
)
def test_a_check_speaks_about_the_attacks_in_its_scope(scope, speaks_about):
    pgd = PGD(threat=LINF)
    attacks = {
        "ce": pgd, "dlr": APGDDLR(threat=LINF), "bpda": BPDA(attack=pgd), "eot": EOT(attack=pgd),
        "square": Square(threat=LINF), "fgsm": FGSM(threat=LINF),
    }  # fmt: skip
    assert {label for label, attack in attacks.items() if applies(failed(scope), attack)} == speaks_about


def test_a_check_of_one_ball_says_nothing_about_another():
    check = failed("any", threat=str(LINF))
    evaluations = {"clean": Clean(), "here": PGD(threat=LINF), "there": PGD(norm="l2", eps="1/10")}
    assert [copy.evaluation for copy in attached([check], evaluations)] == ["here"]
    assert verdict_for("here", evaluations["here"], [], [check]) == ("suspect", ["because"])
    assert verdict_for("there", evaluations["there"], [], [check]) == ("trusted", [])
    assert verdict_for("here", evaluations["here"], [failed("any")], []) == ("trusted", [])  # of no evaluation


def ledger(**broken):
    rows = [
        {"model": "m", "evaluation": label, "sample": sample, "correct": sample not in ids}
        for label, ids in broken.items()
        for sample in range(100)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("more", "verdict"), [(5, "trusted"), (25, "suspect"), (50, "broken")])
def test_the_adaptive_number_is_the_lower_one(more, verdict):
    ids = list(range(100))
    diagnosis = Diagnosis("m", broken_ids={str(LINF): {"square": ids[: 20 + more]}}, samples={str(LINF): ids})
    attack = PGD(threat=LINF)
    checks = contradictions(ledger(pgd=set(ids[:20])), {"clean": Clean(), "pgd": attack}, diagnosis)
    assert checks[0].value == pytest.approx(0.8 - more / 100)
    found, reasons = verdict_for("pgd", attack, checks, [])
    assert found == verdict
    assert verdict == "trusted" or f"{80 - more:.1f} %" in reasons[0]


def test_real_black_box_families_are_weighed_against_gradients():
    ids = set(range(100))
    evaluations = {"pgd": PGD(threat=LINF), "square": Square(threat=LINF)}
    checks = ledger_checks(ledger(pgd=set(), square=ids - set(range(50))), evaluations)
    assert [check.evaluation for check in checks if not check.passed] == ["pgd"]


def test_a_diagnosis_is_data_and_can_be_repeated(plain, digits):
    images, labels, ids = digits[1]
    classifier = Classifier(plain, num_classes=10).train()
    found = diagnose(classifier, images, labels, ids, [LINF], seed=3, model="m.o.0", samples=48)
    assert classifier.training
    assert Diagnosis.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert diagnose(classifier, images, labels, ids, [LINF], seed=3, model="m.o.0", samples=48) == found
    assert set(found.broken_ids[str(LINF)]["reference"]) <= set(found.samples[str(LINF)]) <= set(ids.tolist())
    assert len({figure["id"] for figure in found.curves}) == len(found.curves) == 7
    assert all(len(line["x"]) == len(line["y"]) > 0 for figure in found.curves for line in figure["series"])
    # they show shares of the images that are right when clean, which are no accuracies, and say so
    assert not any("accuracy" in figure["y_label"] for figure in found.curves)
    shares = [figure for figure in found.curves if figure["y_label"] == "share of clean-right images"]
    assert len(shares) == 4
    assert all("right when clean" in figure["caption"] and figure["y_range"] == [0, 1] for figure in shares)


def test_transfer_from_a_plain_twin_exposes_a_cut_graph(plain, digits):
    images, labels, ids = digits[1]
    cut = Classifier(lambda x: plain(x.detach()), num_classes=10)
    twin = Classifier(plain, num_classes=10)
    found = diagnose(cut, images, labels, ids, [LINF], seed=0, samples=64, surrogates={"twin": twin})
    check = next(check for check in found.checks if check.check == "not beaten by transfer from twin")
    assert not check.passed
    assert check.severity == "broken"


def test_a_constant_classifier_and_too_few_images_need_no_check(digits):
    images, labels, ids = digits[1]
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.zero_()
    constant = Classifier(nn.Sequential(nn.Flatten(), layer), num_classes=10)
    for data in ((images, labels, ids), (images[:0], labels[:0], ids[:0])):
        found = diagnose(constant, *data, [LINF], seed=0)
        assert [check.check for check in found.checks] == ["enough samples"]
        assert found.checks[0].passed
