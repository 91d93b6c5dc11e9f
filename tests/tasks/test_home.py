"""The home: where things lie, what the environment says, and clear errors when it cannot be written."""

import os
import subprocess
import sys

import pytest

from tasks.home import Home, HomeError, activate


def test_everything_lies_under_the_root(tmp_path):
    home = Home.at(tmp_path / "h").create()
    folders = {p.relative_to(home.root).as_posix() for p in home.root.rglob("*") if p.is_dir()}
    assert {"reports", "ledger", "store", "mlartifacts", "prefect", "prefect/results", "locks", "logs"} <= folders
    assert home.mlflow_db == home.root / "mlflow.db"


def test_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_HOME", str(tmp_path / "there"))
    assert Home.current().root == tmp_path / "there"
    monkeypatch.delenv("ROBUST_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home.current().root == tmp_path / ".robust"


def test_activation_silences_telemetry_and_clears_foreign_runs(tmp_path, monkeypatch):
    before = dict(os.environ)
    monkeypatch.setenv("MLFLOW_RUN_ID", "somebody-elses")
    try:
        home = activate(Home.at(tmp_path / "h"))
        assert "MLFLOW_RUN_ID" not in os.environ
        assert os.environ["DO_NOT_TRACK"] == "1"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert os.environ["PREFECT_HOME"] == str(home.prefect)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_users_own_settings_win_where_they_may(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    assert Home.at(tmp_path).environment()["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HomeError, match=r"cannot be written.*ROBUST_HOME"):
        Home.at(tmp_path / "file" / "home").create()


def test_a_full_disk_is_a_clear_error(tmp_path, repository):
    # a limit on file size stands in for a full disk: the write fails with an OSError just the same
    program = (
        "import resource, signal; from tasks.home import Home, HomeError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        f"try: Home.at({str(tmp_path / 'h')!r}).create()\n"
        "except HomeError as error: assert 'free space' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=repository)


def test_the_modules_load_without_prefect_mlflow_or_torch(repository):
    program = (
        "import sys, tasks.home, tasks.manifest, tasks.store, tasks.locks, tasks.code, tasks.cache, tasks.server\n"
        "heavy = {'prefect', 'mlflow', 'torch'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=repository)
