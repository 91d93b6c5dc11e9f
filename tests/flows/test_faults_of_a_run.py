"""Faults that a run cannot mend: it ends with one clear message, no traceback and no run left open, and can go on."""

import os
import resource
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.outcomes import exit_code

STUDY = """\
name: tiny
dataset: {name: digits, train: 200, select: 50, calibrate: 50, test: 30}
models: [{name: mlp, hidden: [256, 256]}]
objectives: [{name: standard, training: {epochs: 1}}]
evaluations: [clean, {name: fgsm, eps: 1/10}]
report: {examples: 0}
validity: 16
shard: 30
"""


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of so many bytes, in memory; only root may mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def may_mount(folder: Path) -> bool:
    try:
        with small_disk(folder, "64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.fixture
def command(robust):
    (robust.folder / "tiny.yaml").write_text(STUDY)
    return robust


def statuses(command) -> dict[str, int]:
    with closing(sqlite3.connect(command.home / "mlflow.db")) as database:
        return dict(database.execute("select status, count(*) from runs group by status").fetchall())


def assert_clear(err: str, *words: str) -> None:
    assert "Traceback" not in err
    message = err[err.rindex("error: ") :]
    assert len(message.splitlines()) <= 8, message
    for word in words:
        assert word in message, message


def test_a_full_store_stops_the_run_and_space_lets_it_go_on(command):
    store = command.folder / "store"
    if not may_mount(command.folder / "probe"):
        return  # without root the limit on file sizes has to do: the next test
    with small_disk(store, "100k"):  # the weights alone are larger
        _, err = command.run("run", "tiny.yaml", code=1, ROBUST_STORE=str(store))
        assert_clear(err, "takes no file", "No space left", "free space")
        assert not [path for path in store.rglob(".part-*")], "nothing half-written is left"
        assert "RUNNING" not in statuses(command)
        subprocess.run(["mount", "-o", "remount,size=50m", store], check=True)
        command.run("run", "tiny.yaml", ROBUST_STORE=str(store))
    assert statuses(command)["FINISHED"] >= 2


def test_a_home_that_takes_no_more_is_said_and_room_lets_it_go_on(command):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # less than any database

    process = subprocess.run(
        command.words("run", "tiny.yaml"), cwd=command.folder, env=command.environment(), capture_output=True,
        text=True, preexec_fn=limited, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    assert_clear(process.stderr, str(command.home))
    command.run("run", "tiny.yaml")


@pytest.mark.parametrize("home", ["/proc/robust", "/dev/null/robust"])
def test_a_home_that_cannot_be_written_is_named(command, home):
    _, err = command.run("run", "tiny.yaml", "--home", home, code=2)
    assert_clear(err, home, "cannot be written", "ROBUST_HOME")


@pytest.mark.parametrize(("variable", "text"), [("ROBUST_THREADS", "two"), ("ROBUST_CHECKPOINT_SECONDS", "soon")])
def test_a_setting_that_cannot_be_read_is_named(command, variable, text):
    _, err = command.run("run", "tiny.yaml", code=2, **{variable: text})
    assert_clear(err, f"{variable}={text}", "leave it out")


def test_a_loss_that_is_no_number_ends_the_run_by_name(command):
    changes = ["objectives.standard.training.lr=1e30", "objectives.standard.training.epochs=3"]
    _, err = command.run("run", "tiny.yaml", *(word for change in changes for word in ("--set", change)), code=1)
    assert_clear(err, "not finite", "training.lr")
    assert set(statuses(command)) == {"FAILED"}
    assert not (command.home / "reports" / "tiny").exists()


NAMES = ("../../etc/passwd", "/etc/passwd", "..", "a/../../b", "tiny\n", "\x00", "x" * 5000)
VERBS = (("report",), ("compare", "tiny"), ("replay",))


@pytest.fixture
def same_environment():
    """Commands that run in this process point it at their home; this puts back where it pointed before."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("same_environment")
def test_names_lead_nowhere_outside_the_home(command, monkeypatch):
    monkeypatch.chdir(command.folder)
    before = set(command.folder.iterdir())
    cases = [(*verb, name) for verb in VERBS for name in NAMES] + [("watch", NAMES[0]), ("promote", NAMES[0])]
    for case in cases:
        result = CliRunner().invoke(app, [*case, "--home", str(command.home)])
        assert result.exit_code != 0, case
        assert exit_code(result.exception) == 2, (case, result.exception)
        assert len(str(result.exception)) < 8000, case
    assert set(command.folder.iterdir()) - before <= {command.home}
