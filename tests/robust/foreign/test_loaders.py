"""Every form in which a model may come, loaded and compared with the network that was saved."""

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from robust.checkpoint import save_weights
from robust.classifier import Classifier
from robust.diagnostics.masking import diagnose
from robust.foreign.loaded import ForeignError, Source
from robust.foreign.loading import load
from robust.models.mlp import MLP
from robust.models.model import Inputs
from robust.threat import ThreatModel


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def loaded(text, folder, *trusted):
    return load(Source.of(text, folder, trusted))


def test_python_factories_modules_and_functions(tmp_path, images):
    (tmp_path / "mine_for_tests.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build(width=3):\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def dropped():\n    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return x.flatten(1)[:, :10]\n"
        "def predict(images):\n    import numpy\n    return numpy.asarray(images).reshape(len(images), -1)[:, :10]\n"
        "def needs(a, b):\n    pass\n"
        "number = 3\n"
        "def broken():\n    return Nett()\n"
        "def without_weights():\n    return torch.load('gone.pt')\n"
    )
    (tmp_path / "no_python_for_tests.py").write_text("def f(:\n")
    (tmp_path / "needs_more_for_tests.py").write_text("import no_such_package\n")
    with torch.random.fork_rng():
        built = loaded("mine_for_tests:build", tmp_path)
    assert built.module(images).shape == (5, 10)
    assert built.modules == ("mine_for_tests",)
    assert not built.notes
    assert not built.module.training
    assert loaded("mine_for_tests:dropped", tmp_path).notes == ("train mode",)
    assert torch.equal(loaded("mine_for_tests:Net", tmp_path).module(images), images.flatten(1)[:, :10])
    assert torch.equal(loaded("mine_for_tests:predict", tmp_path).module(images), images.flatten(1)[:, :10])
    for text, words in (
        ("mine_for_tests:nothing", "it has .*build"),
        ("mine_for_tests:needs", "arguments a, b"),
        ("mine_for_tests:number", "is a int"),
        ("no_such_module_here:f", "no module"),
        ("mine_for_tests:broken", r"NameError: name 'Nett' is not defined .*mine_for_tests\.py, line \d+"),
        ("mine_for_tests:without_weights", r"FileNotFoundError: .*gone\.pt"),
        ("no_python_for_tests:f", "SyntaxError: .*no_python_for_tests"),
        ("needs_more_for_tests:f", "needs_more_for_tests:f raised ModuleNotFoundError: .*no_such_package"),
    ):
        with pytest.raises(ForeignError, match=words):
            loaded(text, tmp_path)
    sys.path.remove(str(tmp_path))


def test_torchvision_by_name_with_its_number_of_classes_and_wrapped_weights(tmp_path):
    from robust.torchvision import load as torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision().models.get_model("squeezenet1_1", weights=None).eval()
        small = torchvision().models.get_model("resnet18", weights=None, num_classes=7).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in small.state_dict().items()}, "epoch": 3}, tmp_path / "w.pt")
    torch.save(net.state_dict(), tmp_path / "s.pth")
    x = torch.rand(1, 3, 64, 64)
    found = loaded("resnet18@w.pt", tmp_path)
    assert torch.equal(found.module(x), small(x))
    assert torch.equal(loaded("torchvision:squeezenet1_1@s.pth", tmp_path).module(x), net(x))
    assert found.digest != loaded("torchvision:squeezenet1_1@s.pth", tmp_path).digest
    with pytest.raises(ForeignError, match="another network; name the one that they were saved from"):
        loaded("resnet18@s.pth", tmp_path)
    with pytest.raises(ForeignError, match="resnet18") as refused:
        loaded("resnet81@w.pt", tmp_path)
    assert str(refused.value).count("resnet18") == 1  # both libraries have it
    with pytest.raises(ForeignError, match=r"resnet18@w\.pt.*module:function"):
        loaded("w.pt", tmp_path)


def test_a_factory_that_imports_torchvision_itself_works_beside_any_build(tmp_path):
    (tmp_path / "with_torchvision_for_tests.py").write_text(
        "import torchvision\n"
        "def build():\n    return torchvision.models.get_model('squeezenet1_1', weights=None, num_classes=4)\n"
    )
    code = (
        "import torch\nfrom robust.foreign.loaded import Source\nfrom robust.foreign.loading import load\n"
        "net = load(Source.of('with_torchvision_for_tests:build', '.')).module\n"
        "print(tuple(net(torch.rand(1, 3, 64, 64)).shape))"
    )
    # a process of its own: in this one torchvision may have been imported already
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 4)", done.stderr


def test_torchscript_and_exported_archives(tmp_path, images, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net).save(str(tmp_path / "net.pt"))
        batch = torch.export.Dim("batch")
        program = torch.export.export(net, (images,), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / "net.pt2")
    for name in ("net.pt", "net.pt2"):
        found = loaded(name, tmp_path)
        x = images.clone().requires_grad_(True)
        y = found.module(x)
        assert torch.allclose(y, net(images), atol=1e-6)
        assert torch.autograd.grad(y.sum(), x)[0].abs().sum() > 0
        found.module.eval()
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "net.pt2").read_bytes()[:-300])
    (tmp_path / "empty.pt2").touch()
    for name in ("cut", "empty"):
        with pytest.raises(ForeignError, match=rf"{name}\.pt2"):
            loaded(f"{name}.pt2", tmp_path)


@pytest.mark.parametrize("form", ["script", "export"])
def test_the_validity_of_archives_can_be_examined(tmp_path, net, digits, form):
    images, labels, ids = digits.batch(slice(0, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if form == "script":
            torch.jit.script(net).save(str(tmp_path / "net.pt"))
        else:
            program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            torch.export.save(program, tmp_path / "net.pt2")
    module = loaded("net.pt" if form == "script" else "net.pt2", tmp_path).module
    threat = ThreatModel(norm="linf", eps="1/50")
    found = diagnose(Classifier(module, num_classes=10).eval(), images, labels, ids, [threat], 0, samples=24)
    assert "not beaten by square" in {check.check for check in found.checks}
    assert not [check.reason for check in found.checks if not check.passed]


def test_an_exported_program_of_a_fixed_batch_takes_any_number(tmp_path, images, net):
    torch.export.save(torch.export.export(net, (images[:2],)), tmp_path / "two.pt2")
    found = loaded("two.pt2", tmp_path).module
    x = images.clone().requires_grad_(True)
    for count in (1, 2, 5):
        assert torch.allclose(found(x[:count]), net(images[:count]), atol=1e-6)
    (slopes,) = torch.autograd.grad(found(x).sum(), x)
    again = images.clone().requires_grad_(True)
    assert torch.allclose(slopes, torch.autograd.grad(net(again).sum(), again)[0], atol=1e-6)


def test_exported_archives_are_read_by_many_threads_at_once(tmp_path, images, net):
    torch.export.save(torch.export.export(net, (images,)), tmp_path / "net.pt2")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: loaded("net.pt2", tmp_path).module(images), range(8)))
    assert all(torch.equal(each, found[0]) for each in found)


def test_safetensors_with_a_configuration(tmp_path, images):
    model = MLP(hidden=(5,))
    inputs = Inputs(shape=(1, 8, 8), num_classes=10, mean=(0.3,), std=(0.4,))
    classifier = model.classifier(inputs).eval()
    save_weights(classifier, tmp_path / "net.safetensors")
    with pytest.raises(ForeignError, match="configuration"):
        loaded("net.safetensors", tmp_path)
    settings = {"model": model.settings(), "inputs": inputs.model_dump(mode="json")}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert torch.equal(loaded("net.safetensors", tmp_path).module(images), classifier(images))
    (tmp_path / "net.json").write_text(json.dumps({**settings, "model": "nonsense"}))
    with pytest.raises(ForeignError, match=r"net\.json.*nonsense"):
        loaded("net.safetensors", tmp_path)


class Evil(nn.Module):
    """What runs when it is unpickled leaves a file."""

    def __init__(self, path=None):
        super().__init__()
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_that_run_code_are_refused_unless_trusted(tmp_path, images, net):
    torch.save({"state_dict": Evil(str(tmp_path / "touched"))}, tmp_path / "evil.pt")
    for text in ("evil.pt", "resnet18@evil.pt"):
        with pytest.raises(ForeignError, match=r"--trust .*evil\.pt"):
            loaded(text, tmp_path)
    assert not (tmp_path / "touched").exists()
    torch.save(net, tmp_path / "whole.pt")
    with pytest.raises(ForeignError, match="--trust"):
        loaded("whole.pt", tmp_path)
    assert torch.equal(loaded("whole.pt", tmp_path, "whole.pt").module(images), net(images))


def test_a_file_that_is_none_of_torch_s_is_not_offered_to_be_trusted(tmp_path):
    (tmp_path / "notes.pt").write_text("not weights")
    with pytest.raises(ForeignError, match="is no file that torch") as refused:
        loaded("resnet18@notes.pt", tmp_path)
    assert "--trust" not in str(refused.value)


def test_a_trusted_pickle_finds_its_class_in_the_folder(tmp_path, images, monkeypatch):
    name = "class_of_a_pickle_for_tests"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    save = f"import torch\nfrom {name} import Net\ntorch.save(Net(), 'net.pt')"
    subprocess.run([sys.executable, "-c", save], cwd=tmp_path, check=True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert loaded("net.pt", tmp_path, "net.pt").module(images).shape == (5, 10)
    del sys.modules[name]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with pytest.raises(ForeignError, match=rf"{name}.*neither in .*elsewhere nor on PYTHONPATH"):
        loaded("../net.pt", elsewhere, "../net.pt")


def test_exported_archives_whose_pickles_run_code_are_refused(tmp_path, images, net):
    import io
    import zipfile

    program = torch.export.export(net, (images,))
    torch.export.save(program, tmp_path / "net.pt2")
    harm = io.BytesIO()
    torch.save(Evil(str(tmp_path / "touched")), harm)
    with zipfile.ZipFile(tmp_path / "net.pt2") as old, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, harm.getvalue() if "sample_inputs" in name else old.read(name))
    with pytest.raises(ForeignError, match=r"--trust .*evil\.pt2"):
        loaded("evil.pt2", tmp_path)
    assert not (tmp_path / "touched").exists()


def test_other_texts_get_the_list_of_forms(tmp_path):
    with pytest.raises(ForeignError, match="expected module:function"):
        loaded("resnet18", tmp_path)
    with pytest.raises(ForeignError, match="no file"):
        loaded("net.onnx", tmp_path)
