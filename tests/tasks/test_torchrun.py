"""A training shared by two processes under torchrun: the weights of one process, whatever happens on the way.

Real processes on gloo. Each start costs two imports of torch, so the accidents share one training.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from robust.study_file import loads
from robust.trained import Interrupted
from tasks import stopping
from tasks.home import Home
from tasks.prepare import prepare, prepare_work
from tasks.store import Store
from tasks.torchrun import RankError
from tasks.train import train, train_works

STUDY = """\
name: ranks
dataset: {{name: digits, train: 270, select: 45}}
models: [{{name: small-cnn, width: 2}}]
objectives:
  - name: pgd-at
    eps: 1/10
    steps: 2
    training:
      {{ranks: {ranks}, epochs: 8, batch_size: 25, optimizer: sgd, lr: 0.05, augment: crop, snapshots: [1]}}
evaluations: [clean]
"""


def work_of(home, ranks):
    study = loads(STUDY.format(ranks=ranks))
    [work] = train_works(study, prepare.run(prepare_work(study.dataset, home)), home).values()
    return work


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The home in which two ranks trained in peace."""
    home = Home.at(tmp_path_factory.mktemp("undisturbed")).create()
    train.run(work_of(home, 2))
    return home


def weights(done, home, role):
    return load_file(Store.of(home).get(done.files[role].sha256))


def ranks_in(home):
    """The pids of the ranks that train in this home, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended since
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"tasks.rank" in words and any(str(home.root).encode() in word for word in words):
                environment = (folder / "environ").read_bytes().split(b"\0")
                for entry in environment:
                    if entry.startswith(b"RANK="):
                        found[int(entry[5:])] = int(folder.name)
    return found


class Attempt(threading.Thread):
    """One try at a training, and what became of it."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error, self.done = work, None, None
        self.start()

    def run(self):
        try:
            self.done = train.run(self.work)
        except (RankError, Interrupted) as error:
            self.error = error

    def reach(self, step_file):
        """Wait until the training has left a checkpoint that was not there before."""
        before = step_file.stat().st_mtime_ns if step_file.exists() else 0
        deadline = time.monotonic() + 240
        while not (step_file.exists() and step_file.stat().st_mtime_ns > before):
            assert self.is_alive(), self.error
            assert time.monotonic() < deadline, "no checkpoint within four minutes"
            time.sleep(0.01)


def test_two_ranks_end_with_the_weights_of_one_process(undisturbed):
    alone, shared = work_of(undisturbed, 1), work_of(undisturbed, 2)
    assert alone.key != shared.key
    assert train.explain(shared).hit
    assert not (undisturbed.checkpoints / shared.key).exists()
    one, two = train.run(alone), train.run(shared)
    first, second = (weights(done, undisturbed, "epoch-1") for done in (one, two))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (second[name] - value).norm() <= 1e-5 * value.norm(), name
    for passes in ("forward", "backward"):
        assert two.metrics[passes] == one.metrics[passes]  # of both ranks together


def test_a_stop_and_a_killed_rank_cost_a_checkpoint_and_change_nothing(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_CHECKPOINT_SECONDS", "0")  # after every step
    home = Home.at(tmp_path).create()
    work = work_of(home, 2)
    checkpoint = home.checkpoints / work.key / "checkpoint.pt"

    asked = Attempt(work)
    asked.reach(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "requested", lambda: True)
        asked.join(15)
    assert isinstance(asked.error, Interrupted)
    assert "saved in" in str(asked.error)

    killed = Attempt(work)
    killed.reach(checkpoint)
    os.kill(ranks_in(home)[1], signal.SIGKILL)
    killed.join(15)
    assert isinstance(killed.error, RankError)
    assert "a rank of its training" in str(killed.error)
    assert "start the same run again" in str(killed.error)
    assert not ranks_in(home), "no rank outlives the task"

    resumed, peaceful = train.run(work), train.run(work_of(undisturbed, 2))
    assert resumed.key == peaceful.key
    assert resumed.digests() == peaceful.digests()
    assert resumed.metrics == peaceful.metrics
