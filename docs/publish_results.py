"""Keeps the numbers of finished studies in the repository: report.json without figures, pictures and volatile parts.

    python docs/publish_results.py .robust tulip max-margin
    python docs/publish_results.py .robust confidence --folder results

writes `results/founding/<study>.json` (or `<folder>/<study>.json`) from `<home>/reports/<study>/report.json`: study,
data, networks with their digests, evaluations, groups, claims, published numbers beside ours, measured quantities
without their per-epoch rows, settings, environment and the manifest. `docs/results_table.py` makes the README's tables.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from robust.checkpoint import write_atomically

KEPT = (
    "schema", "study", "size", "title", "dataset", "models", "evaluations", "worst_case", "groups", "differences",
    "calibration", "detection", "claims", "published", "paper_figures", "not_run", "shift", "environment", "manifest",
    "commands", "settings",
)  # fmt: skip
DIGITS = 8  # significant ones of each number: more than any sample here can tell
RESULTS = Path(__file__).parents[1] / "results" / "founding"


def published(report: dict) -> dict:
    """What is kept of a report."""
    kept = {key: report[key] for key in KEPT if key in report}
    kept["measured"] = [row for row in report.get("measured", []) if row.get("epoch") is None]
    return kept


def text_of(content: dict) -> str:
    """JSON with one row of a table on a line, so that a change of a number is a change of a line."""
    parts = []
    for key, value in content.items():
        rows = value if isinstance(value, list) and value else None
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows or [])
        parts.append(f'"{key}": ' + (f"[\n  {lines}\n ]" if rows else json.dumps(value, ensure_ascii=False)))
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def main() -> None:
    """Read the reports of a home, write what is kept of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for study in args.studies:
        text = (args.home / "reports" / study / "report.json").read_text(encoding="utf-8")
        report = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.{DIGITS}g}"))
        content = text_of(published(report)).encode()
        write_atomically(args.folder / f"{study}.json", content)
        print(f"{study}: {len(content):,} bytes, {len(report['claims'])} claims")


if __name__ == "__main__":
    main()
