"""The evaluation tasks, killed with SIGKILL at ten random moments, against ones that nobody touched."""

import subprocess
import sys
from pathlib import Path

STUDY = """\
name: tiny
dataset: {name: digits, train: 300, select: 50, calibrate: 50, test: 200}
models: [{name: mlp, hidden: [16]}]
objectives: [{name: standard, training: {epochs: 1}}]
evaluations: [clean, {name: gaussian-noise, sigma: 1/5}, {name: pgd, eps: 1/10, steps: 20, restarts: 3}]
shard: 20
"""

# one process imports torch once and forks a child for each attempt, so that ten kills cost one start
SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
from robust import ledger
from robust.study_file import loads
from tasks.assemble import Outcome, ledger_of
from tasks.evaluate import evaluate, evaluate_works
from tasks.home import Home
from tasks.networks import Built
from tasks.prepare import prepare, prepare_work
from tasks.store import Store
from tasks.train import train, train_works

def works_in(home):
    data = prepare.run(prepare_work(study.dataset, home))
    (training,) = train_works(study, data, home).values()
    (network,) = study.networks()
    built = Built(network, training, train.run(training))
    return data, built, evaluate_works(study, built, study.evaluations, data, "test")

def finish(home):
    data, built, works = works_in(home)
    outcome = Outcome(study, data, {built.id: built.trained})
    outcome.judged[built.id] = {place: evaluate.run(work) for place, work in works.items()}
    ledger.write(ledger_of(outcome, Store.of(home)), home.root / "ledger.parquet")

study = loads(Path("tiny.yaml").read_text())
untouched, killed = (Home(Path(name).absolute()).create() for name in ("untouched", "killed"))
works_in(untouched), works_in(killed)
began = time.perf_counter()
finish(untouched)
length = time.perf_counter() - began
kills = 0
for _ in range(10):
    child = os.fork()
    if child == 0:
        finish(killed)
        os._exit(0)
    time.sleep(random.uniform(0, length / 4))
    os.kill(child, signal.SIGKILL)
    kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
finish(killed)
print(kills)
"""


def test_killed_ten_times_the_ledger_is_the_same_bytes(tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 5
    first, second = (Path(tmp_path, name, "ledger.parquet").read_bytes() for name in ("untouched", "killed"))
    assert first == second
