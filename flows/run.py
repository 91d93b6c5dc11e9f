"""`robust run`: validate, start or join the home's server, run the flow, show a table, name the report."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from flows.runners import check_runner, task_runner
from tasks import stopping
from tasks.home import Home, activate
from tasks.server import begin


@stopping.on_signals()
def run_studies(
    studies: Sequence[str],
    size: str,
    changes: Sequence[str],
    home: Path,
    runner: str,
    seeds: Sequence[int] | None,
    quiet: bool,
    as_json: bool,
) -> Path:
    """Run study files and folders of them; returns the path of the last report."""
    check_runner(runner)
    files = study_files(studies)
    show_progress(quiet)
    place = activate(Home(home))
    if not os.environ.get("ROBUST_DEBUG"):  # the command line says once what went wrong; the server keeps the log
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    server = begin(place)  # its start and our imports take seconds each: let them overlap
    try:
        from robust.study_file import load

        specs = [load(path, cast("Any", size), changes, seeds) for path in files]
        with server:
            from flows.study import study

            paths = study.with_options(task_runner=task_runner(runner))(
                files, cast("Literal['cpu']", size), list(changes), list(seeds) if seeds is not None else None
            )
    finally:
        server.close()
    for spec, path in zip(specs, paths):
        report = json.loads(Path(path).with_name("report.json").read_text(encoding="utf-8"))
        sys.stdout.write(json_lines(report) if as_json else f"\n{spec.title}\n{accuracy_table(report)}\n")
    folders = [Path(given) for given in studies if Path(given).is_dir()]
    return join_folder(folders[-1], paths, size, place) if folders else Path(paths[-1])


def join_folder(folder: Path, paths: Sequence[str], size: str, home: Home) -> Path:
    """One report of all the studies that were run, under the folder's name; returns its path."""
    from robust.report.join import joined, render_joined

    documents = [json.loads(Path(path).with_name("report.json").read_text(encoding="utf-8")) for path in paths]
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "joined"
    name = name if size == "cpu" else f"{name}-{size}"
    if name in {document["study"] for document in documents}:  # a study's report is not overwritten
        name = f"{name}-joined"
    return render_joined(joined(documents, name, folder.resolve().name), home.reports / name)


def study_files(studies: Sequence[str]) -> list[str]:
    """The YAML files that the arguments name; a folder stands for all of its files.

    Raises:
        StudyError: if there is none.
    """
    from robust.yamltree import StudyError

    files = []
    for study in studies:
        path = Path(study)
        found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            remedy = _near_files(path) or "check the path"
            raise StudyError([f"{study}:1: study: there is no such file or no .yaml file in it; {remedy}"])
        files += [str(file) for file in found]
    return files


def _near_files(path: Path) -> str:
    """Study files called like the one that is not there, here and in studies/."""
    there = {file.stem: file for folder in ("studies", ".") for file in sorted(Path(folder).glob("*.yaml"))}
    near = difflib.get_close_matches(path.stem, there, n=2)
    return f"did you mean {' or '.join(str(there[stem]) for stem in near)}?" if near else ""


def accuracy_table(report: dict[str, Any]) -> str:
    """Accuracy, interval and verdict of every network and evaluation, at most 80 columns."""
    from robust.report.terminal import fitted

    lines = [f"{'network':<24} {'evaluation':<15} {'eps':>7} {'acc %':>6} {'95 % interval':>13}  verdict"]
    for row in report["evaluations"]:
        interval = f"{100 * row['low']:.1f}-{100 * row['high']:.1f}"
        verdict = row["verdict"] if row["norm"] else ""
        lines.append(
            f"{fitted(row['model'], 24):<24} {fitted(row['label'], 15):<15} {row['eps'] or '':>7} "
            f"{100 * row['accuracy']:>6.1f} {interval:>13}  {verdict}".rstrip()
        )
    return "\n".join(lines)


def json_lines(report: dict[str, Any]) -> str:
    """One JSON object a line for each evaluation."""
    return "".join(json.dumps(row) + "\n" for row in report["evaluations"])


def show_progress(quiet: bool) -> None:
    """Progress as plain lines on standard error; nothing when quiet."""
    log = logging.getLogger("robust.progress")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
    log.info("starting: loading torch and Prefect")  # seconds, on a busy machine many, before there is more to tell
