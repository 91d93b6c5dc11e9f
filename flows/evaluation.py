"""`robust evaluate`: read the arguments, run the flow, show what was found, and judge the gates."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import arguments
from flows.outcomes import InputError
from flows.run import accuracy_table, show_progress
from tasks import stopping
from tasks.home import Home, activate
from tasks.server import begin

if TYPE_CHECKING:
    from robust.foreign.request import Request
    from robust.gate import Gate


@stopping.on_signals()
def evaluate_model(settings: dict[str, Any], home: Path, quiet: bool, as_json: bool) -> bool:
    """Evaluate a model; returns whether all gates are met."""
    arguments.check(settings)
    show_progress(quiet)
    place = activate(Home(home))
    if not os.environ.get("ROBUST_DEBUG"):  # the command line says once what went wrong; the server keeps the log
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    server = begin(place)  # its start and our imports take seconds each: let them overlap
    try:
        request, gates = _asked(settings)
        with server:
            from flows.evaluate import evaluate
            from flows.runners import task_runner

            path = Path(evaluate.with_options(task_runner=task_runner("threads"))(request))
    finally:
        server.close()
    from tasks.foreign_report import answer

    report = json.loads(path.with_name("report.json").read_text(encoding="utf-8"))
    rulings = [gate.ruling([*report["worst_case"], *report["evaluations"]]) for gate in gates]
    result = answer(report, place.ledger / f"{request.title}.parquet")
    if as_json:
        for ruling in rulings:
            print(ruling, file=sys.stderr)  # noqa: T201 - the last line of standard output is the answer
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write(told(report, [str(ruling) for ruling in rulings]) + f"\n{path}\n")
    return all(ruling.met for ruling in rulings)


def _asked(settings: dict[str, Any]) -> tuple[Request, list[Gate]]:
    """The request and its gates; whatever is wrong with the arguments is told before anything is computed.

    Raises:
        InputError: naming the option.
    """
    from pydantic import ValidationError

    from robust.foreign.request import Request
    from robust.gate import Gate

    gates = [gate for text in settings["gates"] for gate in Gate.parse(text)]
    try:
        request = Request(**settings)
        request.check()
    except ValidationError as error:
        raise InputError(arguments.complaint(error)) from None
    return request, gates


def told(report: dict[str, Any], rulings: Sequence[str]) -> str:
    """The outcome for a terminal of 80 columns: what the network expects, mistakes, accuracies, gates."""
    import textwrap

    from tasks.foreign_report import FOUND, STOPPED

    found = [row for row in report["evidence"] if row["check"].startswith(("inputs", FOUND, STOPPED))]
    reasons = [reason for row in report["evaluations"] for reason in row["reasons"] if row["norm"]]
    texts = [f"{row['check']}: {row['detail']}" if row["check"].startswith(FOUND) else row["detail"] for row in found]
    lines = [line for text in texts for line in textwrap.wrap(text, 80, subsequent_indent="  ")]
    lines += ["", accuracy_table(report)]
    lines += [line for reason in dict.fromkeys(reasons) for line in textwrap.wrap(reason, 80, subsequent_indent="  ")]
    return "\n".join([*lines, *rulings])


def numbers(option: str, text: str | None) -> list[float]:
    """`0.485,0.456,0.406` as numbers.

    Raises:
        InputError: naming the option.
    """
    from robust.method import exact

    try:
        return [float(exact(part)) for part in text.split(",")] if text else []
    except ValueError as error:
        raise InputError(
            f"{option} {text}: expected numbers with commas, for example 0.485,0.456,0.406 ({error})"
        ) from (None)


def half_width(text: str | None) -> float | None:
    """`±1%`, `1%` or `0.01` as 0.01.

    Raises:
        InputError: if it is none of these.
    """
    if text is None:
        return None
    plain = text.strip().lstrip("±+-")
    try:
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        raise InputError(f"--until {text}: write for example ±1%") from None
