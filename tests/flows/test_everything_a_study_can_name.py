"""A study with a defence, diagnostics, claims, robust conformal sets and an attack on scores: each leaves its rows."""

import json

import pytest

from robust import ledger

STUDY = """\
name: whole
dataset: {name: digits, train: 400, select: 100, calibrate: 100, test: 60}
models: [{name: mlp, hidden: [32]}]
objectives:
  - {name: standard, training: {epochs: 8, batch_size: 25, snapshots: [1, 3]}}
  - name: standard
    label: noisy
    training: {epochs: 8, batch_size: 25, label_noise: 0.4, samples: 200}
    on: {networks: ["mlp.*"]}
defences:
  - {name: input-quantisation, label: coarse, bits: 2, on: {networks: ["mlp.standard"]}}
evaluations:
  - clean
  - {name: pgd, norm: l2, eps: 1/2, steps: 4}
  - {name: pgd, label: few, norm: l2, eps: 1/2, steps: 4, on: {networks: ["mlp.standard*"], samples: 20}}
  - {name: bpda, label: adaptive, attack: {name: pgd, norm: l2, eps: 1/2, steps: 4}, on: {networks: ["*+coarse"]}}
  - {name: overconfidence, eps: 1/10, steps: 4}
  - {suite: mnist-c, severities: [3], on: {networks: ["mlp.*"], samples: 20}}
  - {name: pgd, label: after, norm: l2, eps: 1/2, steps: 2, after: {name: fog, severity: 3}, on: {samples: 20}}
calibrators: [temperature, {name: rscp-plus, eps: 1/8, samples: 16, on: {samples: 20, networks: ["mlp.standard"]}}]
detectors: [energy]
ood: [{name: uniform-noise, test: 40}]
score_attack: {threat: {norm: linf, eps: 1/10}, steps: 3, samples: 20}
diagnostics:
  - {name: adversarial-sparsity, draws: 1, steps: 3, samples: 20, on: {networks: ["mlp.standard"]}}
claims:
  - {name: accuracy-gap, label: q1, question: "Better?", better: mlp.standard, than: mlp.noisy, under: clean}
  - name: measured
    label: q2
    question: "Are perturbations rare?"
    groups: [mlp.standard]
    quantity: adversarial-sparsity
    at_least: 0
  - {name: untested, label: q3, question: "And elsewhere?", reason: there are no such data}
report: {examples: 1}
validity: 20
"""


@pytest.fixture(scope="module")
def outcome(started):
    command = started
    (command.folder / "whole.yaml").write_text(STUDY, encoding="utf-8")
    command.run("run", "whole.yaml")
    report = json.loads((command.home / "reports" / "whole" / "report.json").read_text(encoding="utf-8"))
    rows = ledger.read(command.home / "ledger" / "whole.parquet").to_pandas()
    return command, report, rows


def test_each_network_is_judged_alone_and_behind_its_defence(outcome):
    _, report, rows = outcome
    assert [row["id"] for row in report["models"]] == ["mlp.standard.0", "mlp.standard+coarse.0", "mlp.noisy.0"]
    counts = rows[rows["evaluation"] == "few"].groupby("model").size().to_dict()
    assert counts == {"mlp.standard.0": 20, "mlp.standard+coarse.0": 20}
    assert set(rows[rows["evaluation"] == "adaptive"]["model"]) == {"mlp.standard+coarse.0"}
    verdicts = {(row["model"], row["label"]): row["verdict"] for row in report["evaluations"]}
    assert verdicts["mlp.standard+coarse.0", "pgd"] != "trusted", "a quantised network under a plain gradient attack"


def test_claims_are_answered_from_the_rows(outcome):
    _, report, _ = outcome
    claims = {row["id"]: row for row in report["claims"]}
    accuracy = {(r["model"], r["label"]): r["accuracy"] for r in report["evaluations"]}
    gap = accuracy["mlp.standard.0", "clean"] - accuracy["mlp.noisy.0", "clean"]
    assert claims["q1"]["effect"] == pytest.approx(100 * gap, abs=1e-6) or claims["q1"]["effect"] == pytest.approx(gap)
    assert claims["q2"]["verdict"] in ("holds", "partly")
    assert claims["q3"]["verdict"] == "untested"


def test_diagnostics_sets_and_attacked_scores_stand_in_the_report(outcome):
    _, report, _ = outcome
    assert {row["quantity"] for row in report["measured"]} >= {"adversarial-sparsity"}
    covered = [row for row in report["calibration"] if row["calibrator"] == "rscp-plus"]
    assert {row["under"] for row in covered} == {"clean", "pgd", "few"}
    assert {row["model"] for row in covered} == {"mlp.standard.0"}
    aurocs = {row["ood"]: row["auroc"] for row in report["detection"] if row["model"] == "mlp.standard.0"}
    assert set(aurocs) == {"uniform-noise", "uniform-noise, attacked linf 1/10"}
    assert aurocs["uniform-noise, attacked linf 1/10"] <= aurocs["uniform-noise"] + 0.05


def test_the_plan_knows_every_step_and_finds_them_done(outcome):
    command, _, _ = outcome
    steps = json.loads(command.run("plan", "whole.yaml", "--json")[0])
    kinds = {step["step"].split()[0] for step in steps}
    assert {"conformal", "measure", "detect", "diagnose", "train", "evaluate"} <= kinds
    assert all(step["hit"] for step in steps), [step for step in steps if not step["hit"]]


def test_corruptions_are_summed_up_against_the_base(outcome):
    _, report, _ = outcome
    rows = {row["group"]: row for row in report["shift"]}
    assert set(rows) == {"mlp.standard", "mlp.standard+coarse", "mlp.noisy"}
    assert rows["mlp.standard"]["mce"] == pytest.approx(1.0)
    assert {row["corruptions"] for row in rows.values()} == {15}
    accuracy = {(row["model"], row["label"]): row["accuracy"] for row in report["evaluations"]}
    own = [value for (model, label), value in accuracy.items() if model == "mlp.noisy.0" and label[-2:] == "-3"]
    assert rows["mlp.noisy"]["accuracy"] == pytest.approx(sum(own) / len(own))
