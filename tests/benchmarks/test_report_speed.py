"""The benchmark of reports at a small size prints what it promises, and the command stays far below its limit."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report_speed.py"


def test_a_small_ledger_is_built_drawn_and_drawn_again():
    command = [sys.executable, str(SCRIPT), "--models", "3", "--samples", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("3 models, 400 samples, 7 evaluations\n")
    cpu = dict(re.findall(r"^(.+?)\s+[\d.]+ s\s+([\d.]+) s CPU$", done.stdout, re.MULTILINE))
    assert set(cpu) == {"build from the ledger", "render", "robust report"}
    assert float(cpu["robust report"]) < 15
    assert re.search(r"figures, page of 0\.\d\d MB, [\d.]+ of the 15 s allowed", done.stdout)
