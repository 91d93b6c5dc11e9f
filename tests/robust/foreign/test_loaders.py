"""Every form in which a model may come, loaded and compared with the network that was saved."""

import json
import sys
import warnings

import pytest
import torch
from torch import nn

from robust.checkpoint import save_weights
from robust.foreign.loaded import ForeignError, Source
from robust.foreign.loading import load
from robust.models.mlp import MLP
from robust.models.model import Inputs


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
    )
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
    with pytest.raises(ForeignError, match="another network"):
        loaded("resnet18@s.pth", tmp_path)
    with pytest.raises(ForeignError, match="resnet18"):
        loaded("resnet81@w.pt", tmp_path)
    with pytest.raises(ForeignError, match=r"resnet18@w\.pt"):
        loaded("w.pt", tmp_path)


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
    with pytest.raises(ForeignError, match=r"cut\.pt2"):
        loaded("cut.pt2", tmp_path)


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
