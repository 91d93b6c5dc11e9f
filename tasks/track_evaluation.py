"""Track an evaluation: one MLflow run for each `robust evaluate`, with the numbers of its answer and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.foreign_report import answer
from tasks.metric_names import report_metrics
from tasks.tracking import TrackedRun, Tracker

if TYPE_CHECKING:
    from tasks.foreign import Subject

EXPERIMENT = "evaluate"  # one for all models, so that MLflow's compare view shows them side by side


def tracked_evaluation(subject: Subject, flow_run: str) -> TrackedRun:
    """The run of one evaluation, with what was asked; as a context it ends with the right status.

    Args:
        subject: the model, its digest and its data.
        flow_run: id of the Prefect flow run, by which a retry finds the run again.
    """
    request, data = subject.request, subject.data
    tracker = Tracker(subject.home.root)
    tracker.start()
    asked = request.model_dump(
        mode="json", exclude={"model", "dataset", "seed", "folder", "trust"}, exclude_defaults=True
    )
    run = tracker.flow_run(
        EXPERIMENT,
        f"{flow_run}/{request.title}",
        name=request.title,
        params={
            "dataset": data.name,
            "dataset_digest": data.digest,
            "model": request.model,
            "model_digest": subject.identity,
            "form": subject.form,
            "objective": "foreign",  # that name stands in every run; nobody knows how it was trained
            "seed": request.seed,
            "asked": asked,
        },
    )
    run.log_dataset(data.name, data.digest, context="eval", samples=len(data))
    return run


def log_evaluation(run: TrackedRun, report: Mapping[str, Any], page: Path, ledger: Path) -> None:
    """The answer's numbers, the metrics that studies share, the verdict, and the report's files.

    Args:
        run: of the evaluation.
        report: the content of report.json.
        page: of report.html; all files of its folder are kept.
        ledger: the rows behind the report.
    """
    found = answer(report, ledger)
    low, high = found["interval"]
    numbers = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    run.log_metrics({**numbers, "interval_low": low, "interval_high": high})
    for model in report["models"]:
        run.log_metrics(report_metrics(report, model["id"]))
    run.set_tags({"robust.verdict": found["verdict"], "robust.reasons": "; ".join(found["reasons"])})
    run.log_files([*sorted(file for file in page.parent.iterdir() if file.is_file()), ledger], "report")
