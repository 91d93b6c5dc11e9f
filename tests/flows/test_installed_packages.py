"""`robust doctor` imports what it calls ok: a package that is installed but broken is named with its error."""

import pytest

from flows import doctor, installed

BROKEN = {
    "fails": "raise RuntimeError('operator torchvision::nms does not exist')",
    "ends": "import os\nos._exit(7)",
    "works": "",
    "lacks": "import libcannotbethere",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name, content in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(installed, "modules_of", lambda names: {name: name for name in names})


def test_every_package_whose_import_fails_is_named_with_its_error(packages):
    assert installed.unimportable(list(BROKEN)) == {
        "fails": "RuntimeError: operator torchvision::nms does not exist",
        "ends": "it ended Python with exit code 7",
        "lacks": "ModuleNotFoundError: No module named 'libcannotbethere'",
    }


def test_packages_are_imported_by_the_module_that_they_bring():
    found = installed.modules_of(["scikit-learn", "pyyaml", "pillow", "matplotlib", "torch", "PyArrow"])
    assert found["scikit-learn"] == "sklearn"
    assert found["pyyaml"] == "yaml"
    assert found["pillow"] == "PIL"
    assert found["matplotlib"] == "matplotlib"
    assert found["torch"] == "torch"


def test_the_doctor_tells_a_broken_package_from_one_that_robust_goes_round(monkeypatch):
    monkeypatch.setattr(doctor, "unimportable", lambda names: {"scipy": "OSError: libm", "torchvision": "RuntimeError"})
    found = {finding["check"]: finding for finding in doctor._packages()}
    assert found["scipy"]["state"] == "wrong"
    assert "cannot be imported: OSError: libm" in found["scipy"]["detail"]
    assert found["torchvision"]["state"] == "note"
    assert found["packages"]["state"] == "note"
    assert "scipy" not in found["packages"]["detail"]

    def fails():
        raise ImportError("no")

    monkeypatch.setattr(doctor, "load", fails)
    (wrong,) = [finding for finding in doctor._packages() if finding["check"] == "torchvision"]
    assert wrong["state"] == "wrong"
