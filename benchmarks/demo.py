"""How long `robust run studies/demo.yaml` takes the first time and from the cache, with the environment in place.

    python benchmarks/demo.py [STUDY] [--size cpu]

Prints the wall seconds of both runs, their ratio, and the share of the second spent inside heavy tasks.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def timed(arguments: list[str], home: Path) -> float:
    """Wall seconds of one `robust` command in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    subprocess.run(command, env={**os.environ, "ROBUST_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def heavy_seconds(home: Path) -> tuple[float, dict[str, int]]:
    """Seconds inside tasks that were computed in the latest flow run, and how many tasks ended in which state."""
    with sqlite3.connect(f"file:{home}/prefect/prefect.db?mode=ro", uri=True) as database:
        latest = database.execute("select id from flow_run order by created desc limit 1").fetchone()[0]
        rows = database.execute(
            "select state_name, total_run_time from task_run where flow_run_id = ?", (latest,)
        ).fetchall()
    states: dict[str, int] = {}
    for state, _ in rows:
        states[state] = states.get(state, 0) + 1
    return sum(_seconds(spent) for state, spent in rows if state != "Cached"), states


def _seconds(spent: object) -> float:
    if isinstance(spent, int | float):
        return float(spent)
    moment = str(spent).rpartition(" ")[2]  # SQLite keeps an interval as a moment after the epoch
    hours, minutes, seconds = (float(part) for part in moment.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="studies/demo.yaml")
    parser.add_argument("--size", default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        arguments = ["run", given.study, "--size", given.size, "--quiet"]
        first = timed(arguments, home)
        busy, states = heavy_seconds(home)
        print(f"first   {first:7.1f} s   {busy:7.2f} s inside tasks   {states}")
        second = timed(arguments, home)
        busy, states = heavy_seconds(home)
        print(f"second  {second:7.1f} s   {busy:7.2f} s inside computed tasks   {states}")
        print(f"second / first {second / first:.3f}   heavy / first {busy / first:.4f}")


if __name__ == "__main__":
    main()
