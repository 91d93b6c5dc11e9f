"""The tables of results in the README, made from results/; never kept by hand.

    python docs/results_table.py            # writes the tables between their markers of README.md
    python docs/results_table.py --check    # exit code 1 if they are not what the JSON files say

One row a claim of results/founding/*.json, each the report.json of a study or any object with its `study` and `claims`;
from results/confidence.json calibration under attack, and from results/regularisers.json what each regulariser adds,
one row a network.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: made by docs/results_table.py -->", "<!-- end of results -->"
CALIBRATION = "<!-- calibration: made by docs/results_table.py -->", "<!-- end of calibration -->"
REGULARISERS = "<!-- regularisers: made by docs/results_table.py -->", "<!-- end of regularisers -->"
UNDER = ("clean", "gaussian-noise", "fgsm", "pgd", "overconfidence")
NOTHING = "No results are committed yet; `robust run studies/founding` makes them."
HEAD = "| study | question | verdict | effect (95 % interval) | attack | seeds |\n|---|---|---|---|---|---|"


def table(folder: Path) -> str:
    """One row a claim, in the order of the files and of their claims.

    Raises:
        ValueError: if a file is no report.
    """
    rows = [row for path in sorted(folder.glob("*.json")) for row in _rows(path)]
    return "\n".join([HEAD, *rows]) if rows else NOTHING


def calibration(report: dict[str, Any]) -> str:
    """ECE in percent with its interval, as trained and with a temperature, of each network under some evaluations."""
    found = {(row["model"], row["calibrator"], row["under"]): row for row in report["calibration"]}
    lines = [f"| network | calibrator | {' | '.join(UNDER)} |", "|---" * (len(UNDER) + 2) + "|"]
    for model in dict.fromkeys(row["model"] for row in report["calibration"]):
        for calibrator in ("none", "temperature"):
            cells = [_percent_within(found.get((model, calibrator, under)), "ece") for under in UNDER]
            lines.append(f"| {' | '.join([_cell(model), calibrator, *cells])} |")
    return "\n".join(lines)


def regularisers(report: dict[str, Any]) -> str:
    """Accuracies in percent with the verdict where it is not `trusted`, mCE, ECE and AUROC, one row a network."""
    accuracy = {(row["model"], row["label"]): row for row in report["evaluations"]}
    ece = {(row["model"], row["under"]): row["ece"] for row in report["calibration"] if row["calibrator"] == "none"}
    auroc = {row["model"]: row["auroc"] for row in report["detection"] if row["score"] == "max-softmax"
             and row["ood"] == "fashion-mnist"}  # fmt: skip
    shift = {row["group"]: row["mce"] for row in report["shift"]}
    lines = [
        "| network | clean | gaussian-noise | pgd | mCE | ECE clean | ECE overconfidence | AUROC |",
        "|---" * 8 + "|",
    ]
    for model in report["models"]:
        name = model["id"]
        right = [accuracy[name, label] for label in ("clean", "gaussian-noise", "pgd")]
        cells = [
            *(_percent(row["accuracy"]) + (f" ({row['verdict']})" * (row["verdict"] != "trusted")) for row in right),
            f"{shift[model['group']]:.2f}",
            *(_percent(ece[name, under]) for under in ("clean", "overconfidence")),
            f"{auroc[name]:.3f}" if name in auroc else "",
        ]
        lines.append(f"| {' | '.join([_cell(name), *cells])} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _percent_within(row: dict[str, Any] | None, name: str) -> str:
    if row is None or row.get(name) is None:
        return ""
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * row[key] for key in (name, f"{name}_low", f"{name}_high")))


def inserted(text: str, body: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    """The README with this table between its markers.

    Raises:
        ValueError: if the markers are not there once each, in order.
    """
    begin, end = markers
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md needs the lines {begin} and {end}, once each and in this order")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{body}\n{end}{after}"


def made(text: str, results: Path) -> str:
    """The README with all tables as the files in the folder `results` say."""
    text = inserted(text, table(results / "founding"))
    text = inserted(text, calibration(json.loads((results / "confidence.json").read_text("utf-8"))), CALIBRATION)
    return inserted(text, regularisers(json.loads((results / "regularisers.json").read_text("utf-8"))), REGULARISERS)


def _rows(path: Path) -> list[str]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [_row(str(report["study"]), claim) for claim in report["claims"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no report.json with study and claims ({error!r})") from None


def _row(study: str, claim: dict[str, Any]) -> str:
    seeds = claim.get("seeds")
    cells = (study, claim["question"], f"**{claim['verdict']}**", _effect(claim), claim.get("attack"),
             len(seeds) if isinstance(seeds, list) else seeds)  # fmt: skip
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _effect(claim: dict[str, Any]) -> str:
    effect, low, high, unit = (claim.get(key) for key in ("effect", "low", "high", "unit"))
    if effect is None or isinstance(effect, str):
        return effect or ""
    shown = f"{_number(effect)} {unit}" if unit else _number(effect)
    return shown if low is None or high is None else f"{shown} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(value: Any) -> str:
    return "" if value is None else re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def main() -> int:
    """Write or check; returns the exit code."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = made(text, ROOT / "results")
    if sys.argv[1:] == ["--check"]:
        return int(wanted != text)
    if sys.argv[1:]:
        sys.exit(__doc__)
    temporary = readme.with_suffix(".md.part")
    temporary.write_text(wanted, encoding="utf-8")
    os.replace(temporary, readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
