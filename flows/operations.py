"""The commands `watch`, `promote`, `replay` and `compare`: a session, a flow, and a table of what came of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.outcomes import InputError
from flows.session import session
from tasks.home import Home, activate

if TYPE_CHECKING:
    from tasks.registered import Registry
    from tasks.reported import Reported

OUTSIDE = ("ROBUST_STORE", "MLFLOW_TRACKING_URI")  # would answer a replay from what is there already


def watch_model(name: str, alpha: float, home: Path, as_json: bool) -> Path:
    """Look at one champion; the findings are shown whether or not something fell."""
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha}: the chance of a false alarm lies between 0 and 1, for example 0.01")
    _registry(home).aliases(name)  # an unknown name is told before a server starts
    with session(home) as place:
        from flows.watch import AccuracyDropped, watch
        from tasks.watch import report_path

        path = report_path(place, name)
        try:
            watch([name], alpha)
        except AccuracyDropped:
            _show(_read(path), watch_table, as_json)
            raise
        _show(_read(path), watch_table, as_json)
    return path


def promote_run(run: str, gates: Sequence[str], home: Path, as_json: bool) -> Path:
    """Promote a network; the gates are shown whether or not they were met."""
    from robust.gates import Gates

    wanted = Gates.parse(gates)
    name = _registry(home).candidate(run).name
    with session(home) as place:
        from flows.promote import GatesNotMet, promote, rulings_table

        path = place.reports / f"promote-{name}" / "promote.json"
        try:
            promote(run, wanted)
        except GatesNotMet:
            _show(_read(path), rulings_table, as_json)
            raise
        _show(_read(path), rulings_table, as_json)
    return path


def compare_two(first: str, second: str, home: Path, as_json: bool) -> Path:
    """Compare two reports; seconds, without a server."""
    from robust.report.comparison import comparison_table
    from tasks.compare import compare_reports

    path, document = compare_reports(first, second, Home.at(home))
    _show(document, comparison_table, as_json)
    return path


def replay_report(run: str, home: Path, into: Path | None) -> str:
    """Run a report again in a clean home and compare; returns `identical`, or where they first differ.

    Raises:
        InputError: if the home to replay in is in use.
    """
    original = _report_of(run, Home.at(home))
    if into is not None and into.exists() and any(into.iterdir()):
        raise InputError(f"--into {into}: a replay needs an empty folder, or it would find its own results there")
    place = into.absolute() if into else Path(tempfile.mkdtemp(prefix="robust-replay-"))
    for name in OUTSIDE:
        os.environ.pop(name, None)
    with session(place):
        from flows.replay import replay
        from flows.runners import task_runner

        path = replay.with_options(task_runner=task_runner("threads"))(
            original.report["settings"], _source(original.report)
        )
    answer = verdict(original, Path(path))
    if into is None and answer == "identical":
        shutil.rmtree(place)
        return answer
    return answer if answer == "identical" else f"{answer}\nthe replay is kept in {place}"


def watch_table(content: dict[str, Any]) -> str:
    """The findings for a terminal of 80 columns."""
    data = "new data" if content["new_data"] else "the same data"
    lines = [
        f"{content['model']} version {content['version']}, look {content['look']}: "
        f"evaluation seed {content['evaluation_seed']}, {data}",
        f"{'evaluation':<28} {'then %':>6} {'now %':>6} {'fall':>6} {'interval':>14} {'p':>6}",
    ]
    for row in content["evaluations"]:
        interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        lines.append(
            f"{row['label'][:28]:<28} {100 * row['before']:>6.1f} {100 * row['now']:>6.1f} {100 * row['drop']:>6.1f} "
            f"{interval:>14} {row['p_holm']:>6.3f}{' FELL' if row['raised'] else ''}"
        )
    return "\n".join(lines)


def _registry(home: Path) -> Registry:
    place = activate(Home.at(home))
    from tasks.registered import Registry

    return Registry(place)


def _report_of(run: str, home: Home) -> Reported:
    """The report behind a name, a path or an MLflow run."""
    from tasks.reported import find_report

    if re.fullmatch(r"[0-9a-f]{32}", run) and not Path(run).exists():
        return _registry(home.root).report_of_run(run)
    return find_report(home, run)


def verdict(original: Reported, path: Path) -> str:
    """`identical`, or where a replayed report (or else its ledger) first differs, causes before consequences."""
    from robust.differences import first_difference, is_cause, ledger_difference
    from tasks.reported import read_report

    again = read_report(path.with_name("report.json"))
    document = first_difference(original.report, again.report)
    if document is not None and is_cause(document):
        return f"differs at {document}"
    rows = ledger_difference(original.rows(), again.rows())
    if rows is not None:
        return f"differs at {rows}"
    if document is not None:
        return f"differs at {document}"
    if original.ledger.read_bytes() != again.ledger.read_bytes():
        return "differs at ledger: the bytes of the file, although all its rows are equal (another pyarrow?)"
    return "identical"


def _source(report: dict[str, Any]) -> str:
    """How the study file was called when the report was made."""
    size = "" if report["size"] == "cpu" else f" --size {report['size']}"
    return str(report["commands"][0]).removeprefix("robust run ").removesuffix(size)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _show(content: dict[str, Any], table: Any, as_json: bool) -> None:
    sys.stdout.write((json.dumps(content) if as_json else table(content)) + "\n")
