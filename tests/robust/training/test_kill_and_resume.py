"""Real processes, killed with SIGKILL at random moments, against one that nobody touched; two processes, one seed.

A server process imports torch once and forks a child for each training, so that ten kills cost one start.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

SERVER = """
import os, sys, traceback
from pathlib import Path
import torch._dynamo
from robust.datasets.digits import Digits
from robust.models.small_cnn import SmallCNN
from robust.objectives.objective import Training
from robust.objectives.pgd_at import PGDAT
from robust.training import save_weights, train

spec = Digits(train=300, select=50)
objective = PGDAT(eps="1/10", steps=2, training=Training(epochs=6, batch_size=25, augment="crop", lr=5e-3))

def run(folder):
    trained = train(
        SmallCNN(width=4), objective, spec.load("train"), spec.load("select"),
        seed=7, folder=folder, device="cpu", threads=1, checkpoint_steps=2,
    )
    save_weights(trained.best, folder / "best.safetensors")
    save_weights(trained.last, folder / "last.safetensors")
    (folder / "history.txt").write_text(repr((trained.history, trained.forward, trained.backward)))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(Path(line.strip()))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Server:
    """Starts trainings, one at a time, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def train(self, folder: Path, kill_after: float | None = None) -> int:
        """The wait status of a training in this folder, killed after so many seconds if it still runs."""
        folder.mkdir(exist_ok=True)
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it may have ended already
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def server(hashseed: int) -> Iterator[Server]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hashseed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)
        process.stdin.close()


def outcome(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("best.safetensors", "last.safetensors", "history.txt")]


def killed_as_untouched(tmp_path: Path, kills: int) -> None:
    draws = np.random.default_rng()
    with server(hashseed=1) as first:
        assert first.train(tmp_path / "warm") == 0
        began = time.perf_counter()
        assert first.train(tmp_path / "whole") == 0
        length = time.perf_counter() - began
    with server(hashseed=2) as second:
        met = [second.train(tmp_path / "killed", length * draws.uniform(0, 1.5 / kills)) for _ in range(kills)]
        assert second.train(tmp_path / "killed") == 0
    assert set(met) <= {0, signal.SIGKILL}
    assert signal.SIGKILL in met
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole") == outcome(tmp_path / "warm")


def test_killed_and_resumed_equals_uninterrupted_byte_for_byte(tmp_path):
    killed_as_untouched(tmp_path, kills=10)


@pytest.mark.soak
def test_killed_thirty_times_equals_uninterrupted_byte_for_byte(tmp_path):
    for attempt in range(3):
        (tmp_path / str(attempt)).mkdir()
        killed_as_untouched(tmp_path / str(attempt), kills=10)
