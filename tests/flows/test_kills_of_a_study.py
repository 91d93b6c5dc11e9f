"""kill -9 at random moments over a whole study: 5 in every test run, 100 in `make soak`; the outcome never shows it.

Whoever is killed, the run or its server with it, the next run goes on; when one comes through, the study's ledger and
report must be those of a study that nobody touched, MLflow must hold no run that is still RUNNING, and the next study
starts from nothing. One process imports everything once and forks the runs.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = """\
name: tiny
dataset: {name: digits, train: 300, select: 50, calibrate: 50, test: 60}
models: [{name: mlp, hidden: [16]}]
objectives: [{name: standard, training: {epochs: 3}}]
seeds: [0, 1]
evaluations:
  - clean
  - {name: gaussian-noise, sigma: 1/5}
  - {name: pgd, eps: 1/10, steps: 20, restarts: 3}
calibrators: [temperature]
report: {examples: 2}
validity: 16
shard: 15
"""

DRIVER = """
import hashlib, json, os, random, signal, sqlite3, sys, time
from contextlib import closing
from pathlib import Path

count = int(sys.argv[1])
import flows.study, flows.run, tasks.server, mlflow.store.tracking.sqlalchemy_store  # once for all forks
from robust import ledger

def start(home):
    child = os.fork()
    if child:
        return child
    os.environ["ROBUST_HOME"] = str(home)
    output = os.open(home.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    try:
        flows.run.run_studies(["tiny.yaml"], "cpu", [], home, "threads", None, True, True)
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        os.write(output, repr(error).encode())
        os._exit(1)

def ended(child, seconds):
    'Its exit code if it ended within so many seconds, else None.'
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)

def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass

def outcome(home):
    'Ledger, report without what is volatile, its other files, rows that stand twice, and how MLflow saw the runs.'
    report = json.loads((home / "reports/tiny/report.json").read_text())
    del report["volatile"]
    others = [path for path in sorted((home / "reports/tiny").iterdir()) if path.stem != "report"]
    rows = ledger.read(home / "ledger/tiny.parquet").to_pandas()
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        runs = database.execute("select status, count(*) from runs group by status").fetchall()
    return {
        "report": hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest(),
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others},
        "ledger": hashlib.sha256((home / "ledger/tiny.parquet").read_bytes()).hexdigest(),
        "doubled": int(rows.duplicated(ledger.KEY).sum()), "rows": len(rows), "mlflow": dict(runs),
    }

began = time.monotonic()
untouched = Path("untouched").absolute()
assert ended(start(untouched), 600) == 0, Path("output.txt").read_text()
length = time.monotonic() - began
chance, kills, servers, found = random.Random(0), 0, 0, []
while kills < count:
    home = Path(f"study-{len(found)}").absolute()
    while kills < count:
        child = start(home)
        code = ended(child, chance.uniform(0, length))
        if code is not None:
            assert code == 0, Path("output.txt").read_text()[-3000:]
            break
        if chance.random() < 0.25 and (home / "prefect/server.json").exists():
            kill(json.loads((home / "prefect/server.json").read_text())["pid"])
            servers += 1
        kill(child)
        os.waitpid(child, 0)
        kills += 1
    assert ended(start(home), 600) == 0, Path("output.txt").read_text()[-3000:]
    found.append(outcome(home))
print(json.dumps({"kills": kills, "servers": servers, "untouched": outcome(untouched), "killed": found}))
"""


def killed(folder: Path, count: int, timeout: float) -> dict:
    (folder / "tiny.yaml").write_text(STUDY)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(count)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict, count: int) -> None:
    assert found["kills"] == count
    untouched = found["untouched"]
    assert untouched["doubled"] == 0
    assert untouched["rows"] == 2 * 3 * 60
    for study in found["killed"]:
        for part in ("ledger", "report", "files", "doubled", "rows"):
            assert study[part] == untouched[part], part
        assert "RUNNING" not in study["mlflow"]
        assert study["mlflow"]["FINISHED"] >= 3, "the run that came through, and its two networks"


@pytest.mark.timeout(1500)
def test_five_kills_leave_no_trace(tmp_path):
    check(killed(tmp_path, 5, 1400), 5)


@pytest.mark.soak
def test_a_hundred_kills_leave_no_trace(tmp_path):
    check(killed(tmp_path, 100, 7000), 100)
