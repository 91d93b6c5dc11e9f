import subprocess
import sys

import pytest

from robust import registry
from robust.method import Method


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda e: f"{e.kind}-{e.name}")
def test_every_listed_method_imports_and_says_what_it_is(entry):
    method = registry.find(entry.kind, entry.name)
    assert issubclass(method, Method)
    assert (method.kind, method.name) == (entry.kind, entry.name)
    assert entry.summary
    assert entry.family
    assert entry.source
    for field, info in method.model_fields.items():
        assert info.annotation is not None, field


def test_names_are_unique_among_evaluations():
    names = [e.name for kind in ("attack", "corruption") for e in registry.entries(kind)]
    assert len(names) == len(set(names))


def test_unknown_names_suggest_the_near_ones():
    with pytest.raises(registry.UnknownMethod, match="did you mean"):
        registry.find("corruption", "gausian-noise")
    with pytest.raises(registry.UnknownMethod, match="kinds are"):
        registry.entries("nonsense")


def test_listing_imports_no_torch():
    code = "import sys; from robust import registry; registry.entries(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_packages_export_their_methods_lazily():
    import robust.corruptions

    assert robust.corruptions.GaussianNoise.name == "gaussian-noise"
    with pytest.raises(AttributeError):
        _ = robust.corruptions.Nothing


def test_a_broken_file_breaks_only_itself(tmp_path, caplog):
    broken = tmp_path / "half_written.py"
    broken.write_text("class Half(Attack:\n")
    assert registry._named_classes(broken) == []
    assert "half_written.py" in caplog.text
