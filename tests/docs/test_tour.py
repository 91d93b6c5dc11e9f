"""Every command of the five-minute tour, in order, in one home, as a reader types them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def typed(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Standard output of a command in a process group of its own, which ends with the test in any case."""
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        raise
    assert process.returncode == 0, f"{command}\n{out}\n{err}"
    return out


def test_the_tour_runs_as_it_is_written(tmp_path):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", TOUR, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 8
    (program,) = re.findall(r"```python\n(.*?)```", TOUR, re.DOTALL)
    (tmp_path / "mine.py").write_text(program)
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "ROBUST_"))}
    environment = {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "OMP_NUM_THREADS": "1"}
    out = {}
    for command in commands:
        out[command] = typed(command, tmp_path, environment)
    hits, misses, *_ = (text for command, text in out.items() if command.startswith("robust plan"))
    assert "MISS" not in hits
    assert "steps" in misses
    assert not any(line.startswith("MISS  train") for line in misses.splitlines())
    (told,) = (text for command, text in out.items() if command.startswith("robust evaluate"))
    assert "met" in told
    for path in ("demo-smoke", "shorter-smoke", "evaluate-mine-build-digits"):
        assert (tmp_path / ".robust" / "reports" / path / "report.html").is_file(), path
    assert all(len(line) <= 80 for text in out.values() for line in text.splitlines() if not line.startswith("/"))
