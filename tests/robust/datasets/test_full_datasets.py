"""The published sets themselves, where ROBUST_DATA has them."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from robust import torchvision
from robust.datasets.cifar10 import CIFAR10
from robust.datasets.cifar10_human import human_probabilities, noisy_labels
from robust.datasets.dataset import DatasetError
from robust.datasets.mnist import MNIST
from robust.datasets.root import root
from robust.registry import create

COUNTS = [
    pytest.param(name, count, shape, smallest, id=name, marks=pytest.mark.data(name))
    for name, count, shape, smallest in (
        ("mnist", 10_000, (1, 28, 28), 892),
        ("fashion-mnist", 10_000, (1, 28, 28), 1000),
        ("kmnist", 10_000, (1, 28, 28), 1000),
        ("emnist-letters", 20_800, (1, 28, 28), 800),
        ("notmnist", 10_000, (1, 28, 28), 1000),
        ("usps", 2_007, (1, 16, 16), 147),
        ("omniglot", 2_720, (1, 28, 28), 20),
        ("cifar10", 10_000, (3, 32, 32), 1000),
        ("cifar100", 10_000, (3, 32, 32), 100),
        ("svhn", 26_032, (3, 32, 32), 1595),
        ("tiny-imagenet-10", 500, (3, 64, 64), 50),
    )
]


@pytest.mark.parametrize(("name", "count", "shape", "smallest"), COUNTS)
def test_counts_of_the_test_part(name, count, shape, smallest):
    loaded = create("dataset", name).load("test")
    assert (len(loaded), loaded.shape) == (count, shape)
    assert np.bincount(loaded.labels).min() == smallest


@pytest.mark.data("mnist")
def test_mnist_training_statistics():
    whole = MNIST().whole("train")
    pixels = whole.pixels[np.arange(60_000)] / 255
    assert len(pixels) == 60_000
    assert (pixels.mean(), pixels.std()) == (pytest.approx(0.1307, abs=1e-4), pytest.approx(0.3081, abs=1e-4))


@pytest.mark.data("cifar10")
def test_cifar10_training_statistics():
    inputs = CIFAR10().load("train").inputs()
    assert inputs.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-3)
    assert inputs.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-3)


@pytest.mark.data("mnist", "emnist-letters")
def test_letters_stand_as_digits_do():
    # an upright 1 and an upright I or L are taller than wide; transposed letters would lie down
    letters, digits = create("dataset", "emnist-letters").load("test"), MNIST().load("test")
    for data, label in ((digits, 1), (letters, letters.classes.index("I"))):
        mean = data.subset(data.labels == label).batch(slice(0, 200))[0].mean((0, 1))
        spread = [(mean.sum(axis) * (torch.arange(28) - 13.5) ** 2).sum() for axis in (1, 0)]
        assert spread[0] > 2 * spread[1]  # along the height, along the width


@pytest.mark.data("cifar10", "cifar10h", "cifar10n")
def test_human_labels_belong_to_cifar10():
    test, train = CIFAR10().load("test"), CIFAR10().load("train")
    assert (human_probabilities(test).argmax(1) == test.labels).mean() == pytest.approx(0.9921, abs=1e-4)
    noise = {name: (noisy_labels(train, name) != train.labels).mean() for name in ("aggre", "worse")}
    assert noise == {"aggre": pytest.approx(0.0901, abs=2e-3), "worse": pytest.approx(0.4021, abs=3e-3)}


@pytest.mark.data("imagenet_samples")
def test_photographs_are_decoded_by_the_batch():
    loaded = create("dataset", {"name": "folder", "path": "imagenet_samples", "size": 224}).load("test")
    images = loaded.batch(slice(0, 4))[0]
    assert images.shape == (4, 3, 224, 224)
    assert images.std() > 0.1


@pytest.fixture
def mirror():
    """A server on this machine that serves MNIST's files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root() / "MNIST" / "raw")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.data("mnist", "MNIST/raw/train-images-idx3-ubyte.gz")
def test_torchvision_downloads_what_is_missing(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.load().datasets.MNIST, "mirrors", [mirror])
    expected = MNIST().load("test").digest
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path / "new"))
    with pytest.raises(DatasetError, match="files are missing"):
        MNIST().load("test")
    assert MNIST(download=True).load("test").digest == expected
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["MNIST"]


def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.load().datasets.MNIST, "mirrors", [(tmp_path / "nothing").as_uri() + "/"])
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path / "new"))
    with pytest.raises(DatasetError, match=r"mnist: the download failed \(.*put the files by hand at"):
        MNIST(download=True).load("test")
    assert list((tmp_path / "new").iterdir()) == []
