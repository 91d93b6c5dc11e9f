"""The table of founding results in the README, made from results/founding/*.json; never kept by hand.

    python docs/results_table.py            # writes the table between the two markers of README.md
    python docs/results_table.py --check    # exit code 1 if it is not what the JSON files say

Each JSON file is the report.json of a study, or any object with its `study` and `claims`.
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
NOTHING = "No results are committed yet; `robust run studies/founding` makes them."
HEAD = "| study | question | verdict | effect (95 % interval) | attack | seeds |\n|---|---|---|---|---|---|"


def table(folder: Path) -> str:
    """One row a claim, in the order of the files and of their claims.

    Raises:
        ValueError: if a file is no report.
    """
    rows = [row for path in sorted(folder.glob("*.json")) for row in _rows(path)]
    return "\n".join([HEAD, *rows]) if rows else NOTHING


def inserted(text: str, body: str) -> str:
    """The README with this table between its markers.

    Raises:
        ValueError: if the markers are not there once each, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once each and in this order")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{body}\n{END}{after}"


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
    wanted = inserted(text, table(ROOT / "results" / "founding"))
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
