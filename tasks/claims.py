"""Claims: the study's questions put to what its tasks have measured, and the answers as rows of report.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from robust.attacks.attack import Attack

if TYPE_CHECKING:
    from robust.claims.claim import Evidence
    from robust.study import Study

Rows = list[dict[str, Any]]
LEDGER_COLUMNS = ["model", "seed", "evaluation", "sample", "correct", "success", "distance"]
PASSES = ["forward", "backward", "queries"]


def evidence_of(
    study: Study, rows: pa.Table, costs: pa.Table, tables: Mapping[str, Rows], verdicts: Iterable[Mapping[str, Any]]
) -> Evidence:
    """All that a claim may look at, each row marked with its group and seed.

    Args:
        study: names the networks.
        rows, costs: the ledger and its costs.
        tables: `measured`, `history`, `calibration`, `detection`, `resampled`: rows with a `model`.
        verdicts: rows {model, evaluation, verdict, reasons}.
    """
    from robust.claims.claim import Evidence
    from robust.diagnostics.verdict import strength

    networks = {network.id: network for network in study.judged()}
    attacks = {entry.label: entry.method for entry in study.evaluations if isinstance(entry.method, Attack)}
    judged = rows.select([*LEDGER_COLUMNS, *PASSES]).to_pandas()
    judged = judged[judged["evaluation"].isin([entry.label for entry in study.evaluations])]

    def marked(frame: pd.DataFrame) -> pd.DataFrame:
        if not len(frame):
            return frame.reindex(columns=[*frame.columns, *({"model", "group", "seed"} - set(frame.columns))])
        groups = frame["model"].map({name: network.group for name, network in networks.items()})
        seeds = frame["model"].map({name: network.seed for name, network in networks.items()})
        return frame.assign(group=groups, seed=seeds)

    return Evidence(
        ledger=marked(judged),
        costs=marked(costs.to_pandas()),
        **{name: marked(pd.DataFrame(tables.get(name, []))) for name in _FRAMES},
        verdicts={(row["model"], row["evaluation"]): (row["verdict"], list(row["reasons"])) for row in verdicts},
        attacks={entry.label: _in_words(entry.method) for entry in study.evaluations},
        balls={label: str(attack.threat) for label, attack in attacks.items() if attack.threat.eps is not None},
        iterated={label for label, attack in attacks.items() if strength(attack) == "gradient"},
    )


_FRAMES = ("measured", "history", "calibration", "detection", "resampled")


def claim_rows(study: Study, evidence: Evidence) -> Rows:
    """Every claim of the study, judged: `id, question, verdict, effect, low, high, attack, seeds, section`, and why."""
    found = []
    for entry in study.claims:
        method: Any = entry.method
        judgement = asdict(method.judge(evidence))
        found.append({"id": entry.label, "question": method.question, "section": method.section, **judgement})
    return found


def _in_words(method: Any) -> str:
    return f"{method.name}, {method.threat}" if isinstance(method, Attack) else method.name
