"""What `robust evaluate` refuses before anything heavy starts, and in which words."""

import re
import shlex
import subprocess
import sys

import pytest
from pydantic import ValidationError

from flows.arguments import check, complaint
from flows.evaluate import command
from flows.outcomes import InputError
from robust.foreign.request import Request
from robust.gates import GateError

FINE = {
    "model": "mine:build", "folder": ".", "dataset": "digits", "split": "test", "samples": None, "attacks": [],
    "norm": None, "eps": None, "search_dtype": "fp32", "gates": [], "trust": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        {}, {"norm": "l2", "eps": "1/2", "samples": 1}, {"attacks": ["pgd", "{name: pgd, steps: 3}"]},
        {"model": "models:/net@champion"}, {"model": "net.pt"}, {"model": "resnet18@net.pt"}, {"dataset": "photos"},
    ],
)  # fmt: skip
def test_what_may_be_right_passes(tmp_path, monkeypatch, more):
    (tmp_path / "net.pt").touch()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    check({**FINE, "folder": str(tmp_path), **more})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"norm": "Linf"}, r"--norm 'Linf': expected linf, l2 or l1; did you mean linf\?"),
        ({"norm": ""}, "--norm '': expected linf, l2 or l1$"),
        ({"split": "tets"}, r"--split 'tets': .*did you mean test\?"),
        ({"search_dtype": "fp16"}, "--search-dtype 'fp16': expected fp32 or bf16"),
        ({"samples": 0}, "--samples 0: expected a number above 0"),
        ({"samples": -3}, "--samples -3"),
        ({"eps": "abc"}, "--eps: 'abc' is not a number"),
        ({"eps": "8/0"}, "--eps: '8/0' divides by zero"),
        ({"eps": "-1"}, "--eps -1: a radius cannot be negative"),
        ({"attacks": ["pgd", "pdg"]}, r"--attack pdg: .*did you mean pgd\?"),
        ({"dataset": "dgits"}, r"--dataset dgits: .*did you mean digits\?"),
        ({"dataset": "/no/such/folder"}, "--dataset /no/such/folder: there is no such folder"),
        ({"model": "net.pt"}, r"net\.pt: there is no file .*net\.pt"),
        ({"model": "resnet18@w.pt"}, r"resnet18@w\.pt: there is no file .*w\.pt"),
        ({"model": "."}, "is a folder"),
        ({"trust": ["net.pt"]}, r"--trust net\.pt: there is no such file"),
        ({"gates": ["clean > 80"]}, "write 80% for per cent"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(tmp_path, more, words):
    with pytest.raises((InputError, GateError), match=words):
        check({**FINE, "folder": str(tmp_path), **more})


def test_it_is_said_before_torch_is_imported(tmp_path):
    code = (
        "import sys\nfrom flows.cli import app\n"
        "try:\n    app(['evaluate', 'no.pt', '--dataset', 'digits'], standalone_mode=False)\n"
        "except ValueError as error:\n    print(error, 'torch' in sys.modules, 'prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("correct the path False False")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attacks": ["{name: pgd, stepz: 3}"]}, "--attack: there is no field 'stepz'"),
        ({"attacks": ["{name: pgd, steps: 0}"]}, "--attack: steps: .* 1 .got 0."),
        ({"attacks": ["pgd"], "eps": "300"}, "--norm, --eps: eps 300 is larger than the box"),
        ({"until": 0.7}, "--until 0.7: "),
    ],
)
def test_complaints_of_pydantic_speak_of_options(more, words):
    with pytest.raises(ValidationError) as caught:
        Request(model="mine:build", dataset="digits", **more).check()
    told = complaint(caught.value)
    assert "Value error" not in told
    assert re.match(words, told), told


def test_the_command_of_the_report_can_be_pasted_into_a_shell():
    asked = Request(
        model="my net.pt", dataset="my photos/", trust=("my net.pt",), attacks=("{name: pgd, steps: 3}", "fgsm"),
        gates=("clean >= 90%",), classes=("a b", "c"), name="second-look",
    )  # fmt: skip
    words = shlex.split(command(asked))
    assert words[:5] == ["robust", "evaluate", "my net.pt", "--dataset", "my photos/"]
    pairs = list(zip(words[5::2], words[6::2]))
    assert ("--trust", "my net.pt") in pairs
    assert ("--attack", "{name: pgd, steps: 3}") in pairs
    assert ("--gate", "clean >= 90%") in pairs
    assert ("--classes", "a b,c") in pairs
    assert ("--name", "second-look") in pairs
