"""Model cards in the hub's format: YAML front matter with a model index, then the findings in words."""

from __future__ import annotations

from typing import Any

import yaml

from robust.report.curves import slug
from robust.report.document import EvaluationRow, Report


def cards(report: Report) -> dict[str, str]:
    """Name and text of a card for each group of networks (model.objective)."""
    groups = dict.fromkeys(model.group for model in report.models)
    files: dict[str, str] = {}
    for group in groups:
        name = f"card-{slug(group)}"
        while f"{name}.md" in files:
            name += "-2"
        files[f"{name}.md"] = card(report, group)
    return files


def card(report: Report, group: str) -> str:
    """The card of one group."""
    models = [model for model in report.models if model.group == group]
    ids = {model.id for model in models}
    rows = [row for row in (*report.evaluations, *report.worst_case) if row.model in ids]
    front = yaml.safe_dump(_front(report, group, rows), sort_keys=False, allow_unicode=True)
    sentences = [s["text"] for s in report.summary if s.get("group") == group and s["kind"] == "model"]
    lines = [f"---\n{front}---\n", f"# {_inline(group)}\n", *[_inline(s) + "\n" for s in sentences]]
    lines.append("## Threat model\n")
    lines += [f"- {_inline(line)}" for line in report.threat] or ["No attack was run."]
    lines.append(
        "\n## Results\n\n| network | evaluation | n | accuracy | 95 % interval | verdict |\n|---|---|---|---|---|---|"
    )
    lines += [_table_row(row) for row in rows]
    lines.append("\n## How to reproduce\n")
    lines += [f"    {' '.join(command.split())}" for command in report.commands] or ["See report.json."]
    return "\n".join(lines) + "\n"


def _front(report: Report, group: str, rows: list[EvaluationRow]) -> dict[str, Any]:
    return {
        "library_name": "robust-flows",
        "pipeline_tag": "image-classification",
        "tags": ["robustness", "adversarial-examples", "calibration"],
        "datasets": [report.dataset.name],
        "metrics": ["accuracy"],
        "model-index": [{"name": group, "results": [_result(report, row) for row in rows]}],
    }


def _result(report: Report, row: EvaluationRow) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": report.dataset.name, "type": report.dataset.name, "split": report.dataset.split},
        "metrics": [
            {
                "type": "accuracy",
                "name": f"accuracy under {row.label} ({row.model})",
                "value": round(row.accuracy, 6),
                "args": {"norm": row.norm, "eps": row.eps, "n": row.n, "verdict": row.verdict},
            }
        ],
    }


def _table_row(row: EvaluationRow) -> str:
    interval = f"{row.low * 100:.1f} to {row.high * 100:.1f} %"
    cells = [row.model, row.label, row.n, f"{row.accuracy * 100:.1f} %", interval, row.verdict]
    return "| " + " | ".join(_inline(str(cell)) for cell in cells) + " |"


def _inline(text: str) -> str:
    """Text that Markdown shows as it is: on one line, without markup of its own."""
    for character in "\\`*_{}[]<>#|$":
        text = text.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return " ".join(text.split())
