import subprocess
import sys

import pytest

from robust import torchvision


def run(code, path):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(path)})
    return result.stdout.strip(), result.stderr


def test_it_imports_and_its_dependants_after_it():
    package = torchvision.load()
    assert package.__name__ == "torchvision"
    assert package.datasets.FakeData(size=1)[0]
    assert torchvision.load() is package


LOADED = """
from robust.torchvision import declared_operators, load
print(load().__version__, declared_operators.cache_info().currsize)
"""


def test_nothing_is_declared_where_it_imports_by_itself(tmp_path):
    (tmp_path / "torchvision.py").write_text("__version__ = 'whole'")
    out, err = run(LOADED, tmp_path)
    assert out == "whole 0", err


def test_schemas_are_declared_where_the_operators_are_missing(tmp_path):
    (tmp_path / "torchvision.py").write_text(
        "import torch\n"
        "torch.library.register_fake('torchvision::nms', lambda dets, scores, iou_threshold: dets)\n"
        "__version__ = 'mended'\n"
    )
    out, err = run(LOADED, tmp_path)
    assert out == "mended 1", err


def test_other_failures_are_passed_on(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('out of order')")
    out, err = run(LOADED, tmp_path)
    assert out == ""
    assert "out of order" in err


@pytest.mark.parametrize("name", torchvision.OPERATORS)
def test_operators_have_the_published_arguments(name):
    import torch

    torchvision.load()
    schema = getattr(torch.ops.torchvision, name).default._schema
    assert [argument.name for argument in schema.arguments] == ["dets", "scores", "iou_threshold"]
