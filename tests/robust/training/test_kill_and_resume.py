"""A real process, killed with SIGKILL at random moments, against one that nobody touched; and two processes, one seed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
from pathlib import Path
from robust.datasets.digits import Digits
from robust.models.small_cnn import SmallCNN
from robust.objectives.objective import Training
from robust.objectives.pgd_at import PGDAT
from robust.training import save_weights, train

folder = Path(sys.argv[1])
spec = Digits(train=300, select=50)
objective = PGDAT(eps="1/10", steps=2, training=Training(epochs=6, batch_size=25, augment="crop", lr=5e-3))
trained = train(
    SmallCNN(width=4), objective, spec.load("train"), spec.load("select"),
    seed=7, folder=folder, device="cpu", threads=1, checkpoint_steps=1,
)
save_weights(trained.best, folder / "best.safetensors")
save_weights(trained.last, folder / "last.safetensors")
(folder / "history.txt").write_text(repr(trained.history) + repr((trained.forward, trained.backward)))
"""


def start(folder: Path, hashseed: int = 0) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hashseed), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], env=environment)


def outcome(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("best.safetensors", "last.safetensors", "history.txt")]


def wait_for_checkpoint(process: subprocess.Popen[bytes], file: Path, after: float) -> None:
    """Until the process has written a checkpoint of its own, or ended."""
    for _ in range(6000):
        if process.poll() is not None or (file.exists() and file.stat().st_mtime_ns > after):
            return
        time.sleep(0.01)
    pytest.fail("the training wrote no checkpoint within a minute")


def kill_at_random(folder: Path, times: int, draws: np.random.Generator) -> int:
    """Start the training `times` times and kill it somewhere in its work; how many kills met a live process."""
    folder.mkdir()
    kills = 0
    for _ in range(times):
        began = time.time_ns()
        process = start(folder)
        wait_for_checkpoint(process, folder / "checkpoint.pt", began)
        time.sleep(draws.uniform(0, 0.25))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert start(folder, hashseed=5).wait() == 0
    return kills


def check(tmp_path: Path, times: int) -> None:
    (tmp_path / "whole").mkdir()
    assert start(tmp_path / "whole", hashseed=1).wait() == 0
    kills = kill_at_random(tmp_path / "killed", times, np.random.default_rng())
    assert kills >= 1
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    left = {path.name for path in (tmp_path / "killed").iterdir() if not path.name.endswith(".part")}
    assert left == {"checkpoint.pt", "best.safetensors", "last.safetensors", "history.txt"}


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path):
    check(tmp_path, times=3)


@pytest.mark.soak
def test_killed_ten_times_equals_uninterrupted_byte_for_byte(tmp_path):
    check(tmp_path, times=10)
