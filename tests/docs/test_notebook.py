"""The notebook for researchers: valid, without output, and its cells run in order; the library part has ten lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_its_cells_run_without_prefect_and_give_a_ledger_and_a_figure(tmp_path):
    checks = (
        "import sys\nassert 'prefect' not in sys.modules and 'mlflow' not in sys.modules\n"
        "table = ledger.summary().set_index('evaluation')\n"
        "assert table.loc['clean', 'accuracy'] > 0.85 > table.loc['pgd', 'accuracy']\n"
        "assert distances.gt(0).any() and figure.axes and axes.has_data()\n"
    )
    script = tmp_path / "notebook.py"
    script.write_text("\n".join([*CODE, checks]))
    environment = {**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_from_model_to_ledger_and_figure_in_ten_lines():
    (ten,) = (code for code in CODE if "evaluate(classifier" in code)
    assert len([line for line in ten.splitlines() if line.strip()]) <= 10


def test_it_is_kept_without_output():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
