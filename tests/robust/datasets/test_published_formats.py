"""Each published format, written small by the test and read back; then damaged in the ways that files are damaged."""

import gzip
import os
import pickle
import struct
import zipfile
from io import BytesIO
from typing import ClassVar

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from robust.datasets.cifar10 import CIFAR10
from robust.datasets.cifar100 import CIFAR100
from robust.datasets.cifar_pickle import read_pickle
from robust.datasets.dataset import DatasetError
from robust.datasets.emnist_letters import EMNISTLetters
from robust.datasets.idx import read_idx
from robust.datasets.mnist import MNIST
from robust.datasets.notmnist import NotMNIST
from robust.datasets.omniglot import Omniglot
from robust.datasets.svhn import SVHN
from robust.datasets.tiny_imagenet_10 import TinyImageNet10
from robust.datasets.usps import USPS

FEW = {"select": 2, "calibrate": 2}


class OwnMNIST(MNIST):  # a set in the published format that is not the published one
    checksums: ClassVar = {}


class OwnCIFAR10(CIFAR10):
    checksums: ClassVar = {}


class OwnCIFAR100(CIFAR100):
    checksums: ClassVar = {}


class OwnSVHN(SVHN):
    checksums: ClassVar = {}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_pair(folder, images, labels, stems=("t10k", "t10k"), zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, kind, values in ((stems[0], "images-idx3", images), (stems[1], "labels-idx1", labels)):
        path = folder / f"{stem}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(idx(values)) if zipped else idx(values))


def in_order(loaded):
    """Pixels and labels in published order."""
    order = np.argsort(loaded.ids)
    return loaded.pixels[order], loaded.labels[order]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST"])
def test_idx(data, rng, zipped, place):
    images, labels = rng.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12, dtype=np.uint8) % 10
    write_pair(data / place, images, labels, zipped=zipped)
    write_pair(data / place, images[:9], labels[:9], ("train", "train"), zipped=zipped)
    loaded = OwnMNIST().load("test")
    pixels, read = in_order(loaded)
    np.testing.assert_array_equal(pixels[:, 0], images)
    np.testing.assert_array_equal(read, labels)
    parts = [OwnMNIST(**FEW).load(split) for split in ("train", "select", "calibrate")]
    assert [len(part) for part in parts] == [5, 2, 2]


def test_notmnist_reads_mnists_format(data, rng):
    images, labels = rng.integers(0, 256, (3, 28, 28), np.uint8), np.array([0, 9, 4], np.uint8)
    write_pair(data / "notMNIST" / "raw", images, labels)
    loaded = NotMNIST().load("test")
    assert loaded.classes[9] == "J"
    np.testing.assert_array_equal(in_order(loaded)[0][:, 0], images)


def test_emnist_letters_stand_upright(data):
    upright = np.zeros((2, 28, 28), np.uint8)
    upright[:, 4, 3:25] = 255  # the bar of a T is a row, not a column
    stem = "emnist-letters-test"
    write_pair(data / "EMNIST" / "raw", upright.transpose(0, 2, 1).copy(), np.array([1, 26], np.uint8), (stem, stem))
    pixels, labels = in_order(EMNISTLetters().load("test"))
    np.testing.assert_array_equal(pixels[:, 0], upright)
    assert labels.tolist() == [0, 25]


def test_idx_at_another_side_is_another_set_of_the_same_samples(data, rng):
    images, labels = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), np.arange(12, dtype=np.uint8) % 10
    write_pair(data / "MNIST", images, labels)
    published, smaller = OwnMNIST().load("test"), OwnMNIST(side=14).load("test")
    assert smaller.shape == (1, 14, 14)
    assert smaller.inputs().shape == (1, 14, 14)
    assert smaller.ids.tolist() == published.ids.tolist()
    assert smaller.digest != published.digest
    halves = published.batch(slice(None))[0].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    assert float((smaller.batch(slice(None))[0] - halves).abs().mean()) < 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "requires a buffer"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "promises 5 bytes, only 3 follow"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02abc", "promises 2 bytes, more follow"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x02abc", "does not begin like"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12 + b"abc", "asks for"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    path = tmp_path / "x-ubyte"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    whole = gzip.compress(content + bytes(1000))
    for damaged in (whole[:-20], whole[:10] + bytes(20), b"no gzip at all"):
        (tmp_path / "x.gz").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"x\.gz is damaged"):
            read_idx(tmp_path / "x.gz")


def test_pairs_that_do_not_belong_together(data):
    images = np.zeros((4, 28, 28), np.uint8)
    write_pair(data / "MNIST", images, np.zeros(3, np.uint8))
    with pytest.raises(DatasetError, match=r"expected images \[N,H,W\] and labels \[N\]"):
        OwnMNIST().load("test")
    write_pair(data / "MNIST", images, np.full(4, 11, np.uint8))
    with pytest.raises(DatasetError, match="labels from 11 to 11; expected 0 to 9"):
        OwnMNIST().load("test")


def test_a_file_that_is_not_the_published_one_is_named_with_both_digests(data):
    write_pair(data / "MNIST" / "raw", np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8))
    message = (
        r"t10k-images-idx3-ubyte\.gz is damaged: md5 expected 9fb629c4189551a2d022fa330f9573f3, found [0-9a-f]{32};"
    )
    with pytest.raises(DatasetError, match=message + " replace it by .*set dataset.download: true"):
        MNIST().load("test")


def test_the_digest_follows_the_files(data):
    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)
    write_pair(data / "MNIST", images, labels, zipped=False)
    before = OwnMNIST().load("test").digest
    assert OwnMNIST().load("test").digest == before
    path = data / "MNIST" / "t10k-images-idx3-ubyte"
    images[1, 2, 3] = 1
    path.write_bytes(idx(images))  # as long as before
    os.utime(path, ns=(1, 1))
    after = OwnMNIST().load("test")
    assert after.digest != before
    assert in_order(after)[0][1, 0, 2, 3] == 1


def cifar(rng, count, labels_key="labels", classes=10):
    labels = (np.arange(count) % classes).tolist()
    return {b"data": rng.integers(0, 256, (count, 3072), np.uint8), labels_key.encode(): labels, b"filenames": [b"x"]}


def write_pickle(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def test_cifar10_in_both_versions(data, rng):
    batches = {f"data_batch_{i}": cifar(rng, 4) for i in range(1, 6)} | {"test_batch": cifar(rng, 6)}
    for name, content in batches.items():
        write_pickle(data / "cifar-10-batches-py" / name, content)
    python = [OwnCIFAR10(**FEW).load(split) for split in ("train", "test")]
    (data / "cifar-10-batches-bin").mkdir()
    for name, content in batches.items():
        records = np.concatenate([np.array(content[b"labels"], np.uint8)[:, None], content[b"data"]], axis=1)
        (data / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(records.tobytes())
    assert OwnCIFAR10().files("test")[0].suffix == ".bin"
    binary = [OwnCIFAR10(**FEW).load(split) for split in ("train", "test")]
    for one, other in zip(python, binary, strict=True):
        np.testing.assert_array_equal(in_order(one)[0], in_order(other)[0])
        np.testing.assert_array_equal(in_order(one)[1], in_order(other)[1])
    assert binary[0].shape == (3, 32, 32)
    third = batches["data_batch_3"][b"data"][1].reshape(3, 32, 32)
    everything = OwnCIFAR10().whole("train").pixels
    np.testing.assert_array_equal(everything[9], third)


def test_damaged_cifar10_records(data):
    folder = data / "cifar-10-batches-bin"
    folder.mkdir()
    for content, message in ((b"abc", "no whole number of records"), (b"\x0b" + bytes(3072), "holds the label 11")):
        (folder / "test_batch.bin").write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            OwnCIFAR10().load("test")


def test_cifar100(data, rng):
    content = cifar(rng, 7, "fine_labels", 5)
    write_pickle(data / "cifar-100-python" / "test", content)
    write_pickle(data / "cifar-100-python" / "meta", {b"fine_label_names": [b"a", b"b", b"c", b"d", b"e"]})
    loaded = OwnCIFAR100().load("test")
    assert len(loaded.classes) == 5
    np.testing.assert_array_equal(in_order(loaded)[0].reshape(7, -1), content[b"data"])
    write_pickle(data / "cifar-100-python" / "test", {**content, b"fine_labels": [9] * 7})
    with pytest.raises(DatasetError, match=r"something other than 0\.\.4"):
        OwnCIFAR100().load("test")


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_cannot_run_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "batch"
    write_pickle(path, {b"data": Dangerous()})
    with pytest.raises(DatasetError, match=r"batch is damaged: it asks to run \w+\.mkdir"):
        read_pickle(path)
    assert not (tmp_path / "harm").exists()
    path.write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    with pytest.raises(DatasetError, match=r"builtins\.eval"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02]q\x00.", pickle.dumps({b"data": 1}, protocol=2)[:-4]])
def test_damaged_pickles(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DatasetError, match="batch"):
        read_pickle(tmp_path / "batch")


def test_svhn(data, rng):
    (data / "svhn").mkdir()
    images = rng.integers(0, 256, (32, 32, 3, 5), np.uint8)
    path = data / "svhn" / "test_32x32.mat"
    scipy.io.savemat(path, {"X": images, "y": np.array([[1], [10], [2], [9], [10]], np.uint8)})
    pixels, labels = in_order(OwnSVHN().load("test"))
    np.testing.assert_array_equal(pixels, images.transpose(3, 2, 0, 1))
    assert labels.tolist() == [1, 0, 2, 9, 0]
    whole = path.read_bytes()
    for damaged in (whole[:4000], b"", b"MATLAB" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"test_32x32\.mat"):
            OwnSVHN().load("test")
    scipy.io.savemat(path, {"X": images, "y": np.zeros((5, 1), np.uint8)})
    with pytest.raises(DatasetError, match=r"label 1\.\.10"):
        OwnSVHN().load("test")


def test_usps(data, rng):
    (data / "USPS").mkdir()
    path = data / "USPS" / "usps.h5"
    levels = rng.random((6, 256), np.float32)
    with h5py.File(path, "w") as file:
        for part in ("train", "test"):
            file[f"{part}/data"], file[f"{part}/target"] = levels, np.arange(6, dtype=np.int32)
    pixels, labels = in_order(USPS().load("test"))
    np.testing.assert_allclose(pixels.reshape(6, 256) / 255, levels, atol=0.5 / 255 + 1e-6)
    assert labels.tolist() == list(range(6))
    assert USPS(size=28).load("test").shape == (1, 28, 28)
    assert USPS(size=28).load("test").digest != USPS().load("test").digest
    assert USPS(**FEW).load("train").digest != USPS().load("test").digest
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"usps\.h5 is damaged"):
        USPS().load("test")


def drawing(value=255):
    stream = BytesIO()
    image = Image.new("1", (105, 105), 255)
    image.paste(255 - value, (40, 40, 65, 65))
    image.save(stream, "PNG")
    return stream.getvalue()


def write_zip(data, members):
    (data / "omniglot").mkdir(exist_ok=True)
    path = data / "omniglot" / "images_background_small1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def test_omniglot(data):
    top = "images_background_small1/Greek"
    write_zip(data, [(f"{top}/character{c}/{c}_{i}.png", drawing()) for c in ("01", "02") for i in range(3)])
    loaded = Omniglot().load("test")
    assert loaded.classes == ("Greek/character01", "Greek/character02")
    pixels, labels = in_order(loaded)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pixels.shape == (6, 1, 28, 28)
    assert (pixels[0, 0, 0, 0], pixels[0, 0, 14, 14]) == (0, 255)  # white on black
    with pytest.raises(DatasetError, match="no training part"):
        Omniglot().load("train")


def test_unsafe_or_damaged_archives(data, tmp_path):
    link = zipfile.ZipInfo("a/b/link.png")
    link.external_attr = 0o120777 << 16
    for member in ("../../outside.png", "/absolute.png", link):
        write_zip(data, [(member, drawing())])
        with pytest.raises(DatasetError, match="leads outside the archive, is a link"):
            Omniglot().load("test")
    assert not list(tmp_path.glob("**/*.png"))
    write_zip(data, [("a/b/broken.png", drawing()[:60])])
    with pytest.raises(DatasetError, match=r"small1\.zip:a/b/broken\.png cannot be read as an image"):
        Omniglot().load("test")
    path = write_zip(data, [("a/b/c.png", drawing())])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=r"small1\.zip is damaged"):
        Omniglot().load("test")
    write_zip(data, [("readme.txt", b"none")])
    with pytest.raises(DatasetError, match="holds no drawings"):
        Omniglot().load("test")


def test_tiny_imagenet(data, rng):
    top = data / "tiny-imagenet-10"
    wnids = ("n2", "n1")
    (top / "val" / "images").mkdir(parents=True)
    for wnid in wnids:
        (top / "train" / wnid / "images").mkdir(parents=True)
        for i in range(4):
            Image.new("L", (64, 64), 100 * wnids.index(wnid)).save(top / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    Image.new("RGB", (64, 64), (200, 0, 0)).save(top / "val" / "images" / "val_0.JPEG")
    (top / "wnids.txt").write_text("n2\nn1\n")
    (top / "words.txt").write_text("n1\tcat, feline\nn2\tdog\n")
    (top / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t1\t1\n")
    train, test = TinyImageNet10(select=1, calibrate=1).load("train"), TinyImageNet10().load("test")
    assert train.classes == test.classes == ("dog", "cat")
    assert test.labels.tolist() == [1]
    assert [image.round(decimals=1).max().item() for image in train.batch(slice(None))[0]] == pytest.approx(
        [0.4 * label for label in train.labels], abs=0.02
    )
    (top / "val" / "val_annotations.txt").write_text("")
    with pytest.raises(DatasetError, match=r"val_0\.JPEG has no class"):
        TinyImageNet10().load("test")
