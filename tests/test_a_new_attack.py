"""A new attack is two files touched: the one in docs/add-a-method.md is added to a copy of the project and runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
METHOD, ROW = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAME = "margin-step"
DIST = "own_attacks-1.0.dist-info"


def run(folder: Path, *arguments: str, **extra: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "ROBUST_"))}
    environment = {**kept, "OMP_NUM_THREADS": "1", "ROBUST_HOME": str(folder / "home"), **extra}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def project(tmp_path):
    for folder in ("robust", "tasks", "flows"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "robust").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "robust" / "test_every_method.py", tmp_path / "tests" / "robust")
    return tmp_path


def test_the_method_and_its_row_are_enough(project):
    (project / "robust" / "attacks" / "margin_step.py").write_text(METHOD)
    table = project / "tests" / "robust" / "test_every_method.py"
    head = "ATTACKS: dict[str, dict[str, Any]] = {\n"
    text = table.read_text()
    assert text.count(head) == 1
    table.write_text(text.replace(head, head + ROW))

    shown = run(project, "-c", "from flows.cli import main; main()", "show", "attack", NAME)
    assert "One margin step" in shown
    assert "at most 1 forward and 1 backward" in shown
    wanted = f"noise_of_their_size_does_not and {NAME} or has_a_row and attack"
    told = run(
        project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-k", wanted, str(table)
    )
    assert "2 passed" in told


def test_without_its_row_it_is_missed(project):
    (project / "robust" / "attacks" / "margin_step.py").write_text(METHOD)
    code = (
        "from robust.registry import entries\n"
        "import importlib.util, pathlib\n"
        "spec = importlib.util.spec_from_file_location('table', 'tests/robust/test_every_method.py')\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "print({e.name for e in entries('attack')} - set(module.TESTED['attack']))"
    )
    assert NAME in run(project, "-c", code)


def test_a_plug_in_brings_methods_that_may_build_on_ours(tmp_path):
    plugged = (
        METHOD
        + "\n\nfrom robust.attacks.pgd import PGD\n\n\nclass Longer(PGD):\n"
        + ('    """PGD with more steps."""\n\n    name: ClassVar[str] = "longer-pgd"\n    steps: int = 50\n')
    )
    (tmp_path / "own_attacks.py").write_text(plugged)
    (tmp_path / DIST).mkdir()
    (tmp_path / DIST / "METADATA").write_text("Metadata-Version: 2.1\nName: own-attacks\nVersion: 1.0\n")
    points = "[robust.methods]\nown = own_attacks\nbroken = there_is_no_such_module\n"
    (tmp_path / DIST / "entry_points.txt").write_text(points)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    code = (
        "import torch; from torch import nn\n"
        "from robust.classifier import Classifier; from robust.evaluation import evaluate\n"
        "from robust.registry import create, entries\n"
        "names = [e.name for e in entries('attack')]; assert names.count('pgd') == 1, names\n"
        f"attacks = [create('attack', dict(name=n, eps='1/2')) for n in ('{NAME}', 'longer-pgd')]\n"
        "from tasks.code import code_digest, modules_behind\n"
        "assert 'own_attacks' in code_digest(modules_behind(*attacks))[1]\n"
        "torch.manual_seed(0)\n"
        "net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 5)))\n"
        "x, y = torch.rand(8, 1, 6, 6), torch.randint(0, 5, (8,))\n"
        "print(sorted(evaluate(net, x, y, attacks).summary()['evaluation']))"
    )
    assert run(tmp_path, "-c", code, PYTHONPATH=path).strip() == f"['clean', 'longer-pgd', '{NAME}']"
    listed = ("-c", "from flows.cli import main; main()", "list", "attack")
    for _ in range(2):  # from the sources, and from the cache
        assert NAME in run(tmp_path, *listed, PYTHONPATH=path)
