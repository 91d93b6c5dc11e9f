"""SIGINT and SIGTERM in the middle of evaluations: the run ends within 10 s, leaves nobody behind, and can go on.

Sent to the command alone, as a service does, and to its process group, as a terminal does.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tasks.stopping import LAST_WORDS

STUDY = """\
name: tiny
dataset: {name: digits, train: 200, select: 50, calibrate: 50, test: 48}
models: [{name: mlp, hidden: [16]}]
objectives: [{name: standard, training: {epochs: 1}}]
evaluations: [clean, {name: pgd, eps: 1/10, steps: 500, restarts: 2}]
certify_first: false
report: {examples: 0}
validity: 0
shard: 8
"""
ENDLESS = ("--set", "evaluation_seed=1", "--set", "evaluations.pgd.steps=10000000")  # and new keys for the clean shards


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, started):
    """The study in a home of its own, from threads that nobody interrupted."""
    command = type(started)(tmp_path_factory.mktemp("undisturbed"))
    (command.folder / "tiny.yaml").write_text(STUDY)
    command.run("run", "tiny.yaml")
    return command


@pytest.fixture
def copy(undisturbed, tmp_path):
    shutil.copytree(undisturbed.folder, tmp_path, dirs_exist_ok=True)
    return type(undisturbed)(tmp_path)


def records(command) -> set[Path]:
    return set((command.home / "store/records/evaluate").glob("*.json"))


def begun(command, shards: int, *arguments: str):
    """The study's process, as soon as it has so many new shards."""
    before = records(command)
    process = command.start("run", "tiny.yaml", *arguments, ROBUST_WORKERS="2")
    while len(records(command) - before) < shards:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def send(process, number: signal.Signals, group: bool) -> None:
    (os.killpg if group else os.kill)(process.pid, number)


def assert_ends(process) -> None:
    """Within 10 s, workers included: they hold the other ends of the pipes that are read to their end here."""
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10, err
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == LAST_WORDS
    assert not any(word in err for word in ("Traceback", "Error", "WARNING", "Warning")), err


@pytest.mark.parametrize(
    ("runner", "number", "group"),
    [
        ("processes", signal.SIGINT, False),
        ("processes", signal.SIGTERM, False),
        ("processes", signal.SIGTERM, True),
        ("threads", signal.SIGTERM, False),
        ("dask", signal.SIGINT, True),
    ],
)
def test_a_shard_of_hours_is_put_down(copy, runner, number, group):
    process = begun(copy, 5, *ENDLESS, "--runner", runner)
    send(process, number, group)
    assert_ends(process)


def test_a_second_ctrl_c_makes_no_mess(copy):
    process = begun(copy, 5, *ENDLESS, "--runner", "processes")
    send(process, signal.SIGINT, group=True)
    time.sleep(0.7)
    send(process, signal.SIGINT, group=True)
    assert_ends(process)


def test_interrupted_and_started_again_the_bytes_are_the_same(undisturbed, tmp_path):
    command = type(undisturbed)(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    process = begun(command, 7, "--runner", "processes")
    send(process, signal.SIGINT, group=True)
    assert_ends(process)
    done = {path: path.stat().st_mtime_ns for path in records(command)}
    assert len(done) < len(records(undisturbed)), "it was in the middle"
    command.run("run", "tiny.yaml", "--runner", "processes", ROBUST_WORKERS="2")
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was finished was not done again"
    first, second = ((each.home / "ledger/tiny.parquet").read_bytes() for each in (undisturbed, command))
    assert first == second
