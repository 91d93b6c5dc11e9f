"""The table of founding results: made from JSON, between its markers, and in step with the README."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("results_table", ROOT / "docs" / "results_table.py")
results_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_table)
CLAIM = {"id": "a", "question": "Is a | b\nbetter?", "verdict": "holds", "effect": 12.34, "low": 10.0, "high": 14.5,
         "unit": "points", "attack": "autoattack", "seeds": [0, 1, 2]}  # fmt: skip


def test_one_row_a_claim(tmp_path):
    reports = {"b": [CLAIM], "a": [{"id": "x", "question": "Why?", "verdict": "untested", "effect": None}]}
    for study, claims in reports.items():
        (tmp_path / f"{study}.json").write_text(json.dumps({"study": study, "claims": claims}))
    rows = results_table.table(tmp_path).splitlines()[2:]
    assert rows == [
        "| a | Why? | **untested** |  |  |  |",
        "| b | Is a \\| b better? | **holds** | 12.3 points (10 to 14.5) | autoattack | 3 |",
    ]


def test_calibration_has_a_row_a_network_and_calibrator_with_intervals():
    row = {"model": "a", "under": "clean", "calibrator": "none", "ece": 0.005, "ece_low": 0.003, "ece_high": 0.0091}
    rows = results_table.calibration({"calibration": [row, {**row, "calibrator": "lac", "ece": None}]}).splitlines()
    assert rows[2:] == ["| a | none | 0.5 % [0.3, 0.9] |  |  |  |  |", "| a | temperature |  |  |  |  |  |"]


def test_a_regulariser_has_a_row_with_the_verdict_where_it_is_not_trusted():
    outcomes = [("clean", 0.98, "trusted"), ("gaussian-noise", 0.5, "trusted"), ("pgd", 0.125, "suspect")]
    report = {
        "models": [{"id": "a.0", "group": "a"}],
        "evaluations": [{"model": "a.0", "label": k, "accuracy": v, "verdict": verdict} for k, v, verdict in outcomes],
        "calibration": [
            {"model": "a.0", "under": under, "calibrator": "none", "ece": ece}
            for under, ece in (("clean", 0.01), ("overconfidence", 0.7))
        ],
        "detection": [],
        "shift": [{"group": "a", "mce": 0.789}],
    }
    row = results_table.regularisers(report).splitlines()[2]
    assert row == "| a.0 | 98.0 % | 50.0 % | 12.5 % (suspect) | 0.79 | 1.0 % | 70.0 % |  |"


def test_it_replaces_only_what_stands_between_the_markers():
    text = f"before\n{results_table.BEGIN}\nold\n{results_table.END}\nafter\n"
    new = results_table.inserted(text, "new")
    assert new == f"before\n{results_table.BEGIN}\nnew\n{results_table.END}\nafter\n"
    assert results_table.inserted(new, "new") == new
    with pytest.raises(ValueError, match="needs the lines"):
        results_table.inserted("no markers", "new")


def test_what_is_no_report_is_named(tmp_path):
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(ValueError, match=r"odd\.json"):
        results_table.table(tmp_path)
    assert results_table.table(tmp_path / "nowhere") == results_table.NOTHING


def test_the_readme_says_what_the_files_say():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert results_table.made(text, ROOT / "results") == text, "run python docs/results_table.py"
