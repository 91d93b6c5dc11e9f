"""The README's Python runs as it stands, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs():
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 5))
    names = {"module": module, "images": torch.rand(12, 1, 6, 6), "labels": torch.randint(0, 5, (12,))}
    exec(compile(code, "README.md", "exec"), names)
    table = names["ledger"].summary()
    assert set(table["evaluation"]) == {"clean", "pgd", "autoattack"}
    assert set(table["verdict"]) <= {"trusted", "suspect", "broken"}


def test_the_commands_exist():
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    offered = set(re.findall(r"^  ([a-z]+) ", done.stdout, re.MULTILINE))
    used = set(re.findall(r"^robust ([a-z]+)", README, re.MULTILINE)) | set(re.findall(r"; robust ([a-z]+)", README))
    assert used <= offered, used - offered
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)) <= targets
    assert {"install", "demo", "test", "check", "soak", "bench", "serve"} <= targets
