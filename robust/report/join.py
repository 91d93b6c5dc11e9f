"""Several studies' reports joined into one: all claims, the matrix of attacks, the frontier, what a point costs.

`joined` makes the content of report.json from the single reports' own, `render_joined` its files; neither needs a
model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from robust.report import html
from robust.report.curves import slug, style
from robust.report.document import ClaimRow, ClaimVerdict, FigureRow, Report, Row, Series, Verdict, plain
from robust.report.figures import draw
from robust.report.founding import QUESTIONS, SUMMARY
from robust.report.render import write_files
from robust.report.summary import percent
from robust.report.tables import figure_csv, table_csv
from robust.report.views import claim_counts

QUESTION = re.compile(r"^(Q\d+)")


class StudyRow(Row):
    """One of the studies, with the link to its report."""

    study: str
    size: str
    title: str
    question: str
    link: str
    dataset: str
    networks: int
    claims: dict[str, int]
    worst: str = ""


class QuestionRow(Row):
    """One question, with the claims of all studies that answer it."""

    id: str
    question: str
    claims: list[ClaimRow]
    verdict: ClaimVerdict | None  # of all its claims together; none for the question that the others answer
    answer: str = ""  # where no claim does


class GroupPoint(Row):
    """One group of networks: clean and robust accuracy, and what a prediction costs."""

    study: str
    dataset: str
    group: str
    threat: str | None = None
    clean: float | None = None
    robust: float | None = None
    verdict: Verdict | None = None
    passes: float | None = None  # forward and backward passes of a prediction
    baseline: str = ""  # the first group of the study
    gained: float | None = None  # robust accuracy beyond the baseline's
    passes_a_point: float | None = None


class MatrixRow(Row):
    """Accuracy of one group under every evaluation of the studies on its data."""

    study: str
    group: str
    trained: str
    cells: dict[str, float]


class Matrix(Row):
    """Groups by evaluations, of one dataset."""

    dataset: str
    evaluations: list[str]
    rows: list[MatrixRow]


class Joined(BaseModel):
    """The joined report, schema 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["joined"] = "joined"
    study: str
    title: str
    studies: list[StudyRow]
    questions: list[QuestionRow]
    further: list[ClaimRow]
    matrices: list[Matrix]
    groups: list[GroupPoint]
    figures: list[FigureRow]
    volatile: dict[str, Any] = {}


def joined(
    reports: Sequence[Mapping[str, Any]], name: str = "joined", title: str = "", links: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One document of several reports.

    Args:
        reports: contents of report.json, in the order of the page.
        name: of the joined study; its folder.
        title: shown; default the name.
        links: study -> path of its report.html from the joined page; default `../<study>/report.html`.

    Raises:
        pydantic.ValidationError: if a document is not a report of schema 1.
    """
    documents = [Report.model_validate(report) for report in reports]
    where = {d.study: (links or {}).get(d.study, f"../{d.study}/report.html") for d in documents}
    claims = [
        claim.model_copy(update={"study": document.study, "link": f"{where[document.study]}#claims"})
        for document in documents
        for claim in document.claims
    ]
    groups = [point for document in documents for point in _points(document)]
    return plain(
        Joined(
            study=name,
            title=title or name,
            studies=[_study(document, where[document.study]) for document in documents],
            questions=_questions(claims),
            further=[claim for claim in claims if not _asked(claim)],
            matrices=_matrices(documents),
            groups=groups,
            figures=_frontiers(groups),
        )
    )


def _study(document: Report, link: str) -> StudyRow:
    worst = [str(sentence["text"]) for sentence in document.summary if sentence.get("kind") == "worst"]
    return StudyRow(
        study=document.study,
        size=document.size,
        title=document.title,
        question=document.question,
        link=link,
        dataset=document.dataset.name,
        networks=len(document.models),
        claims=dict(claim_counts(document.claims)),
        worst=worst[0] if worst else "",
    )


def _asked(claim: ClaimRow) -> str:
    """The question that a claim's id names (`q15`, `q15-strong`); empty if none."""
    found = QUESTION.match(claim.id.upper())
    return found[1] if found and found[1] in QUESTIONS else ""


def _questions(claims: Sequence[ClaimRow]) -> list[QuestionRow]:
    """All questions in order, if any is asked; the one about theory and practice is answered by the others."""
    answers = {id: [claim for claim in claims if _asked(claim) == id] for id in QUESTIONS}
    if not any(answers.values()):
        return []
    return [
        QuestionRow(
            id=id,
            question=text,
            claims=answers[id],
            verdict=None if id == SUMMARY else _overall(answers[id]),
            answer=_summary(answers) if id == SUMMARY else "" if answers[id] else "No study of this run asks it.",
        )
        for id, text in QUESTIONS.items()
    ]


def _summary(answers: Mapping[str, Sequence[ClaimRow]]) -> str:
    """The verdicts of all questions in a few sentences: what theory has shown here, and what it has not."""
    verdicts = {id: _overall(claims) for id, claims in answers.items() if id != SUMMARY}
    parts = []
    for verdict, words in (
        ("holds", "borne out"),
        ("partly", "borne out in part"),
        ("fails", "not borne out"),
        ("untested", "untested here"),
    ):
        own = [id for id, found in verdicts.items() if found == verdict]
        if own:
            parts.append(f"{len(own)} {words} ({', '.join(own)})")
    return f"Of {len(verdicts)} other questions: {'; '.join(parts)}."


def _overall(claims: Sequence[ClaimRow]) -> ClaimVerdict:
    """One verdict of several claims on a question: that of all, partly if they differ, untested if none is tested."""
    found: set[ClaimVerdict] = {claim.verdict for claim in claims if claim.verdict != "untested"}
    return "untested" if not found else found.pop() if len(found) == 1 else "partly"


def _points(document: Report) -> list[GroupPoint]:
    """Clean and robust accuracy of each group as its report's summary has them, and the cost beyond the first group."""
    threats = [str(sentence["label"]) for sentence in document.summary if sentence.get("label")]
    sentences = [sentence for sentence in document.summary if sentence.get("kind") == "model"]
    prices = _passes(document)
    points: list[GroupPoint] = []
    for sentence in sentences:
        group, clean, robust = sentence["group"], sentence["clean"], sentence["robust"]
        base = points[0] if points else None
        gained = robust - base.robust if base and robust is not None and base.robust is not None else None
        price = prices.get(group)
        extra = price - base.passes if base and price is not None and base.passes is not None else None
        points.append(
            GroupPoint(
                study=document.study,
                dataset=document.dataset.name,
                group=group,
                threat=threats[0].removeprefix("worst-case ") if threats else None,
                clean=clean,
                robust=robust,
                verdict=sentence["verdict"] if robust is not None else None,
                passes=price,
                baseline=base.group if base else "",
                gained=gained,
                passes_a_point=extra / (100 * gained) if gained and gained > 0 and extra is not None else None,
            )
        )
    return points


def _passes(document: Report) -> dict[str, float]:
    """Forward and backward passes of a prediction of each group: those counted on clean images."""
    group_of = {model.id: model.group for model in document.models}
    totals: dict[str, tuple[int, int]] = {}
    for row in document.evaluations:
        if row.name == "clean":
            done, n = totals.get(group_of[row.model], (0, 0))
            totals[group_of[row.model]] = (done + row.forward + row.backward, n + row.n)
    return {group: done / n for group, (done, n) in totals.items() if n and done}


def _matrices(documents: Iterable[Report]) -> list[Matrix]:
    """Of each dataset: groups, with what they were trained against, by evaluations; means over seeds."""
    found: dict[str, tuple[dict[str, None], list[MatrixRow]]] = {}
    for document in documents:
        labels, rows = found.setdefault(document.dataset.name, ({}, []))
        kinds = {row.label for row in document.evaluations}
        trained = {model.group: _trained(document, model.objective) for model in document.models}
        for group, words in trained.items():
            cells = {row.label: row.mean for row in document.groups if row.group == group and row.label in kinds}
            labels |= dict.fromkeys(cells)
            rows.append(MatrixRow(study=document.study, group=group, trained=words, cells=cells))
    return [Matrix(dataset=name, evaluations=list(labels), rows=rows) for name, (labels, rows) in found.items()]


def _trained(document: Report, objective: str) -> str:
    """What a group was trained with: the objective's name, and its norm and eps where it has some."""
    label = objective.partition("+")[0]
    for entry in document.settings.get("objectives", []):
        if entry.get("label") == label:
            parts = [entry.get("name", label), entry.get("norm"), entry.get("eps")]
            return " ".join(str(part) for part in parts if part)
    return label


def _frontiers(groups: Sequence[GroupPoint]) -> list[FigureRow]:
    """Clean against robust accuracy over all groups, one figure a dataset and threat, one series a study."""
    figures = []
    for dataset, threat in dict.fromkeys((point.dataset, point.threat) for point in groups):
        own = [p for p in groups if (p.dataset, p.threat) == (dataset, threat) and None not in (p.clean, p.robust)]
        series = [
            Series(
                label=study,
                mark="points",
                **style(position),
                x=[float(p.clean or 0) for p in own if p.study == study],
                y=[float(p.robust or 0) for p in own if p.study == study],
            )
            for position, study in enumerate(dict.fromkeys(point.study for point in own))
        ]
        if series:
            id = slug("frontier", dataset, threat or "")
            figures.append(
                FigureRow(
                    id=id,
                    file=f"{id}.svg",
                    csv=f"{id}.csv",
                    group="frontier",
                    title=f"{dataset}, {threat}",
                    caption="One point a group of networks, mean over seeds: "
                    + "; ".join(
                        f"{p.group} {percent(p.clean or 0)} clean, {percent(p.robust or 0)} robust" for p in own[:8]
                    ),
                    x_label="clean accuracy",
                    y_label="robust accuracy",
                    y_range=(0.0, 1.0),
                    series=series,
                )
            )
    return figures


def render_joined(document: Mapping[str, Any], folder: str | Path) -> Path:
    """Write the joined report: HTML, JSON, figures and CSVs; returns the path of report.html.

    Raises:
        pydantic.ValidationError: if the document is not a joined report of schema 1.
    """
    report = Joined.model_validate(document)
    drawings = {figure.id: draw(figure) for figure in report.figures}
    files = {figure.file: drawings[figure.id] for figure in report.figures}
    files |= {figure.csv: figure_csv(figure) for figure in report.figures}
    rows = [*(claim for question in report.questions for claim in question.claims), *report.further]
    files["claims.csv"] = table_csv([row.model_dump(mode="json") for row in rows])
    files["groups.csv"] = table_csv([row.model_dump(mode="json") for row in report.groups])
    for matrix in report.matrices:
        lines = [{"study": r.study, "group": r.group, "trained": r.trained, **r.cells} for r in matrix.rows]
        files[f"matrix-{slug(matrix.dataset)}.csv"] = table_csv(lines)
    files["report.html"] = html.joined_page(report, drawings, claim_counts(rows))
    return write_files(files, plain(report), Path(folder))
