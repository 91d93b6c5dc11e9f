"""One small study, run once through the command line in a home of its own; many tests look at what it left."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDY = """\
name: tiny
dataset: {name: digits, train: 400, select: 100, calibrate: 100, test: 90}
models: [{name: mlp, hidden: [32]}]
objectives:
  - {name: standard, training: {epochs: 2}}
  - {name: pgd-at, eps: 1/10, steps: 2, training: {epochs: 2}}
evaluations:
  - clean
  - {name: gaussian-noise, sigma: 1/5}
  - {name: fgsm, eps: 1/10}
  - {name: pgd, eps: 1/10, steps: 5}
calibrators: [temperature]
detectors: [max-softmax, energy]
ood: [{name: uniform-noise, test: 90}]
report: {examples: 2}
shard: 40
"""


@dataclass(frozen=True)
class Command:
    """Runs `robust` as a person would: another process, another folder, a home of its own."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "ROBUST_"))}
        return {**kept, "ROBUST_HOME": str(self.home), "OMP_NUM_THREADS": "1", **extra}

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from flows.cli import main; main()", *arguments]

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.words(*arguments),
            cwd=self.folder, env=self.environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0, **extra: str) -> tuple[str, str]:
        process = self.start(*arguments, **extra)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out, err


@pytest.fixture
def robust(tmp_path) -> Command:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return Command(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Command:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(STUDY)
    command = Command(folder)
    out, err = command.run("run", "tiny.yaml", PYTHONHASHSEED="1")
    (folder / "out.txt").write_text(out)
    (folder / "err.txt").write_text(err)
    return command


@pytest.fixture(scope="session")
def started(tmp_path_factory) -> Command:
    """A folder and a home of its own, with nothing in them yet."""
    return Command(tmp_path_factory.mktemp("started"))
