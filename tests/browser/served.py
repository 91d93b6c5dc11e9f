"""A study that was run while `robust serve` ran: what tests see in a browser, and what the documentation shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROBUST = (sys.executable, "-c", "from flows.cli import main; main()")


@dataclass(frozen=True)
class Served:
    """The servers of one home; the pages are those of its latest flow run."""

    home: Path
    prefect: str
    mlflow: str

    def robust(self, *arguments: str | Path) -> str:
        """Run `robust` in this home; returns the last line that it printed."""
        done = subprocess.run(
            [*ROBUST, *map(str, arguments)], env=_variables(self.home), check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip().splitlines()[-1]

    def flow_run(self) -> str:
        """Prefect's page of the run."""
        (latest,) = _post(f"{self.prefect}/api/flow_runs/filter", sort="START_TIME_DESC", limit=1)
        return f"{self.prefect}/runs/flow-run/{latest['id']}"

    def artifact(self) -> str:
        """Prefect's page of the latest artifact."""
        (latest,) = _post(f"{self.prefect}/api/artifacts/filter", sort="CREATED_DESC", limit=1)
        return f"{self.prefect}/artifacts/artifact/{latest['id']}"

    def children(self) -> list[dict[str, Any]]:
        """MLflow's runs that have a parent, one for each network: `info` and `data`, by name."""
        found = _post(f"{self.mlflow}/api/2.0/mlflow/experiments/search", max_results=100)["experiments"]
        experiments = [each["experiment_id"] for each in found]
        runs = _post(f"{self.mlflow}/api/2.0/mlflow/runs/search", experiment_ids=experiments)["runs"]
        nested = [run for run in runs if any(tag["key"] == "mlflow.parentRunId" for tag in run["data"]["tags"])]
        return sorted(nested, key=lambda run: run["info"]["run_name"])

    def comparison(self) -> str:
        """MLflow's page that sets the networks side by side."""
        runs = self.children()
        chosen = quote(json.dumps([run["info"]["run_id"] for run in runs]))
        return f"{self.mlflow}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([_experiment(runs)]))}"


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """`robust serve` in a home, on free ports, stopped in the end as by Ctrl-C."""
    serving = subprocess.Popen([*ROBUST, "serve"], env=_variables(home), stdout=subprocess.PIPE, text=True)
    try:
        said = []
        for line in serving.stdout:
            said.append(line)
            if line.startswith("serving"):
                break
        else:
            raise RuntimeError(f"robust serve ended early: {''.join(said)}")
        found = json.loads((home / "services.json").read_text())
        yield Served(home, found["prefect"], found["mlflow"])
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=60)


def _variables(home: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return kept | {"ROBUST_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _post(url: str, **question: Any) -> Any:
    asked = urllib.request.Request(url, json.dumps(question).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as response:
        return json.loads(response.read())


def _experiment(runs: list[dict[str, Any]]) -> str:
    (experiment,) = {run["info"]["experiment_id"] for run in runs}
    return experiment
