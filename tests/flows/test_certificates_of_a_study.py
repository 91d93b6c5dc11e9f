"""A study with a certificate: proofs in the ledger and the report, planned and cached like everything else."""

import json

import pandas as pd

STUDY = """\
name: proofs
dataset: {name: digits, train: 400, select: 100, test: 90}
models: [{name: mlp, hidden: [32]}, {name: resnet18, width: 2, norm: group}]
objectives: [{name: standard, training: {epochs: 1}}]
evaluations: [clean, {name: pgd, eps: 1/255, steps: 20}]
certificates:
  - {name: interval, norm: linf, eps: 1/255}
  - {name: interval, label: far, norm: l2, eps: 1/2}
report: {examples: 0}
validity: 0
shard: 40
"""


def test_proofs_stand_in_ledger_report_and_plan(robust):
    (robust.folder / "proofs.yaml").write_text(STUDY)
    waiting = json.loads(robust.run("plan", "proofs.yaml", "--json")[0])
    assert "certify mlp.standard.0/far" in [step["step"] for step in waiting]
    robust.run("run", "proofs.yaml")
    rows = pd.read_parquet(robust.home / "ledger" / "proofs.parquet")
    report = json.loads((robust.home / "reports" / "proofs" / "report.json").read_text())
    found = {(row["model"], row["name"]): row for row in report["certificates"]}
    assert set(found) == {
        (f"{model}.standard.0", name) for model in ("mlp", "resnet18") for name in ("interval", "far")
    }
    near = found["mlp.standard.0", "interval"]
    assert near["n"] == near["verified"] + near["falsified"] + near["unknown"] == 90
    assert near["verified"] > 0
    assert found["mlp.standard.0", "far"]["verified"] == 0
    assert found["resnet18.standard.0", "interval"]["unknown"] == 90  # group normalisation has no interval rule
    of_mlp = rows[rows["model"] == "mlp.standard.0"].set_index("sample")
    proven = {
        label: of_mlp[of_mlp["evaluation"] == label]["certificate"] == "verified" for label in ("interval", "pgd")
    }
    assert proven["interval"].equals(proven["pgd"])  # the same bound at the same eps saved these attacks
    assert of_mlp[of_mlp["evaluation"] == "pgd"]["correct"][proven["pgd"]].all()
    assert all(step["hit"] for step in json.loads(robust.run("plan", "proofs.yaml", "--json")[0]))
