"""A study whose ledger contradicts itself keeps that ledger, and ends with the exit code for it."""

import pandas as pd
import pytest

from flows.outcomes import exit_code
from robust import ledger
from robust.certificates.contradiction import Contradiction
from robust.study_file import loads
from robust.yamltree import StudyError
from tasks.assemble import Outcome, refuse_contradictions
from tasks.certify import certificate_rows
from tasks.home import Home
from tasks.manifest import Manifest

STUDY = """\
name: planted
dataset: digits
models: [mlp]
objectives: [standard]
evaluations: [{name: pgd, eps: 1/5}]
certificates: [{name: interval, norm: linf, eps: 1/10}]
"""


def row(label: str, sample: int, **columns: object) -> dict[str, object]:
    return {"model": "mlp.standard.0", "seed": 0, "evaluation": label, "sample": sample, **columns}


def proofs(*verdicts: str) -> list[dict[str, object]]:
    return [
        row("interval", i, certificate=verdict, radius=0.1 if verdict == "verified" else 0.0)
        for i, verdict in enumerate(verdicts)
    ]


def test_a_contradiction_keeps_the_ledger_and_has_exit_code_3(tmp_path):
    home = Home(tmp_path).create()
    attacked = [row("pgd", 0, success=True, distance=0.05), row("pgd", 1, success=True, distance=0.05)]
    rows = ledger.table(pd.DataFrame([*proofs("unknown", "verified"), *attacked]))
    outcome = Outcome(loads(STUDY), Manifest(task="prepare", key="0" * 64))
    with pytest.raises(Contradiction, match=r"sample 1 of mlp.standard.0 .*planted.parquet") as stopped:
        refuse_contradictions(outcome, rows, home)
    assert exit_code(stopped.value) == 3
    assert ledger.read(home.ledger / "planted.parquet").equals(rows)
    refuse_contradictions(outcome, rows.slice(0, 3), home)


def test_the_report_counts_what_each_certificate_settles():
    rows = ledger.table(pd.DataFrame(proofs("verified", "verified", "falsified", "unknown")))
    assert certificate_rows(loads(STUDY), rows) == [
        {
            "model": "mlp.standard.0", "name": "interval", "norm": "linf", "eps": "1/10", "n": 4,
            "verified": 2, "falsified": 1, "unknown": 1,
        }
    ]  # fmt: skip


def test_a_certificate_and_an_evaluation_share_no_label():
    with pytest.raises(StudyError, match="evaluation's label too"):
        loads(STUDY.replace("eps: 1/10}", "eps: 1/10, label: pgd}"))
