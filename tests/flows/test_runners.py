"""Threads, processes and Dask give the same bytes; a lost Dask worker costs no more than the shard it was at."""

import os
import signal
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from flows.outcomes import InputError
from flows.runners import task_runner

STUDY = """\
name: tiny
dataset: {name: digits, train: 200, select: 50, calibrate: 50, test: 60}
models: [{name: mlp, hidden: [16]}]
objectives: [{name: standard, training: {epochs: 1}}]
seeds: [0, 1]
evaluations:
  - clean
  - {name: gaussian-noise, sigma: 1/5}
  - {name: pgd, eps: 1/10, steps: 5, restarts: 2}
calibrators: [temperature]
report: {examples: 2}
validity: 16
shard: 20
"""


def ledger(command) -> bytes:
    return (command.home / "ledger/tiny.parquet").read_bytes()


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory, started_like) -> bytes:
    command = started_like(tmp_path_factory.mktemp("threads"))
    command.run("run", "tiny.yaml", "--runner", "threads")
    return ledger(command)


@pytest.fixture(scope="module")
def started_like(started):
    """Commands of this file: the same study in another folder."""

    def make(folder: Path):
        (folder / "tiny.yaml").write_text(STUDY)
        return type(started)(folder)

    return make


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_every_runner_gives_the_bytes_of_threads(by_threads, started_like, tmp_path, runner):
    command = started_like(tmp_path)
    command.run("run", "tiny.yaml", "--runner", runner, ROBUST_WORKERS="2")
    assert ledger(command) == by_threads


def test_a_lost_worker_costs_one_shard(by_threads, started_like, tmp_path, monkeypatch):
    command = started_like(tmp_path)
    records = command.home / "store" / "records" / "evaluate"
    for name, value in command.environment().items():
        monkeypatch.setenv(name, value)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        process = command.start("run", "tiny.yaml", "--runner", "dask", ROBUST_DASK=cluster.scheduler_address)
        while len(list(records.glob("*.json"))) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        lost = cluster.workers[0].pid
        os.kill(lost, signal.SIGKILL)
        done = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert lost not in {worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()}
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was finished was not done again"
    assert ledger(command) == by_threads


def test_a_wrong_number_of_workers_is_named(monkeypatch):
    monkeypatch.setenv("ROBUST_WORKERS", "many")
    with pytest.raises(InputError, match="ROBUST_WORKERS=many"):
        task_runner("threads")
