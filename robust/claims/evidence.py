"""What claims ask of the evidence: right and wrong, distances, passes, and which numbers are in doubt.

A claim names groups (`model.objective[+defence]`) and evaluations by their labels; what the study does not hold raises
`Absent`, whose text becomes the reason of an untested claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field

from robust.claims.claim import Claim, Evidence, Frame
from robust.claims.words import listed

Matrix = npt.NDArray[np.float64]
GROUP, EVALUATION = "a group of networks", "an evaluation"  # marks of the fields that name one


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Group = Annotated[str, GROUP]
Groups = Annotated[Names, GROUP]
MaybeGroup = Annotated[str | None, GROUP]
Evaluation = Annotated[str, EVALUATION]
SomeEvaluations = Annotated[Names, EVALUATION]
Evaluations = Annotated[Names, Field(min_length=1), EVALUATION]


class Absent(LookupError):  # noqa: N818 - reads as the message it is
    """The study does not hold what a claim needs; the text says what."""


def references(claim: Claim) -> tuple[list[str], list[str]]:
    """The groups and the evaluations that a claim names, so that a study can refuse labels that it does not have."""
    found: dict[str, list[str]] = {GROUP: [], EVALUATION: []}
    parts: list[BaseModel] = [claim]
    while parts:
        part = parts.pop()
        for field, info in type(part).model_fields.items():
            value = getattr(part, field)
            parts += [item for item in (value if isinstance(value, tuple) else [value]) if isinstance(item, BaseModel)]
            for mark in found:
                if mark in info.metadata:
                    found[mark] += [] if value is None else _as_tuple(value)
    return found[GROUP], found[EVALUATION]


def rows_of(frame: Frame, group: str, what: str) -> Frame:
    """The rows of one group.

    Raises:
        Absent: if there are none; names the groups that there are.
    """
    found = frame[frame["group"] == group] if len(frame) else frame
    if len(found) == 0:
        there = sorted(set(frame["group"].astype(str))) if len(frame) else []
        raise Absent(f"the study holds no {what} of {group}; it holds those of {listed(there)}")
    return found


def right(evidence: Evidence, group: str, under: Sequence[str]) -> Frame:
    """Right (1) or wrong (0) of each network (rows) on each sample (columns), under the worst of some evaluations.

    The worst case is an AND over evaluations, on the samples that all networks and all evaluations share.
    """
    return _joined(evidence, group, under, "correct")


def distances(evidence: Evidence, group: str, under: Sequence[str]) -> Frame:
    """Smallest distance known of each network and sample over some attacks: 0 misclassified, inf not broken."""
    return _joined(evidence, group, under, "distance")


def _joined(evidence: Evidence, group: str, under: Sequence[str], column: str) -> Frame:
    frame = rows_of(evidence.ledger, group, "outcomes")
    wide = []
    for label in under:
        part = frame[frame["evaluation"] == label].dropna(subset=[column])
        if len(part) == 0:
            raise Absent(f"{group} has no {'distances' if column == 'distance' else 'outcomes'} under {label}")
        wide.append(part.astype({column: float, "model": str}).pivot(index="model", columns="sample", values=column))
    models = reduce(lambda a, b: a.intersection(b), [table.index for table in wide])
    tables = [table.loc[models].dropna(axis=1) for table in wide]
    samples = reduce(lambda a, b: a.intersection(b), [table.columns for table in tables])
    if len(models) == 0 or len(samples) == 0:
        raise Absent(f"no sample of {group} was judged under all of {listed(under)}")
    stacked = np.stack([table[samples].to_numpy(float) for table in tables])
    return pd.DataFrame(stacked.min(0), index=models, columns=samples)  # of 0 and 1 the minimum is AND


def paired(first: Frame, second: Frame) -> tuple[Matrix, Matrix]:
    """Two tables as arrays [S,N] on the samples that they share."""
    samples = first.columns.intersection(second.columns)
    if len(samples) == 0:
        raise Absent("the networks were judged on different samples; compare them on the same")
    return first[samples].to_numpy(float), second[samples].to_numpy(float)


def passes(evidence: Evidence, groups: Iterable[str], under: Sequence[str], model: str | None = None) -> float:
    """Forward and backward passes per sample, summed over the evaluations, averaged over the groups' networks."""
    frame = evidence.ledger[evidence.ledger["group"].isin(list(groups)) & evidence.ledger["evaluation"].isin(under)]
    frame = frame if model is None else frame[frame["model"] == model]
    total = frame["forward"].astype(float) + frame["backward"].astype(float)
    return float(total.groupby(frame["evaluation"].astype(str)).mean().sum())


def doubts(evidence: Evidence, groups: Iterable[str], under: Sequence[str]) -> list[str]:
    """The attacks among the evaluations whose validity verdict is not `trusted`, in words; empty if all are.

    An evaluation that fills `success` is an attack; one that was never checked is suspect. The doubt that an attack is
    too weak is settled where another of them is stronger beyond doubt, as in the report's worst case.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    frame = evidence.ledger[evidence.ledger["group"].isin(list(groups)) & evidence.ledger["evaluation"].isin(under)]
    attacks = frame[frame["success"].notna()] if "success" in frame else frame[:0]
    for model, label in attacks[["model", "evaluation"]].astype(str).drop_duplicates().itertuples(index=False):
        verdict, reasons = evidence.verdicts.get((model, label), ("suspect", ["no validity checks were run"]))
        if verdict != "trusted" and not _settled(evidence, attacks[attacks["model"] == model], model, label):
            found.setdefault((label, verdict, (reasons or ["no reason given"])[0]), []).append(model)
    return [f"{label} is {verdict} for {listed(nets, 3)} ({why})" for (label, verdict, why), nets in found.items()]


def _settled(evidence: Evidence, attacks: Frame, model: str, doubted: str) -> bool:
    """Whether a trusted iterated attack in the same ball left no more right, on shared samples, than a doubted one."""
    right = {str(label): part.set_index("sample")["correct"] for label, part in attacks.groupby("evaluation")}
    for label in (set(right) & set(evidence.iterated)) - {doubted}:
        trusted = evidence.verdicts.get((model, label), ("suspect", []))[0] == "trusted"
        if trusted and doubted in evidence.balls and evidence.balls.get(label) == evidence.balls[doubted]:
            shared = right[label].index.intersection(right[doubted].index)
            if len(shared) and right[label][shared].sum() <= right[doubted][shared].sum():
                return True
    return False


def attack_words(evidence: Evidence, under: Sequence[str]) -> str:
    """The evaluations in words."""
    return "; ".join(evidence.attacks.get(label, label) for label in under)
