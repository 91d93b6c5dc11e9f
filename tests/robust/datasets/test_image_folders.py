import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from robust.datasets import decoded, folder
from robust.datasets.dataset import DatasetError
from robust.datasets.folder import Folder, scan


def save(path, value, size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


@pytest.fixture
def flowers(tmp_path):
    for label, name in enumerate(("rose", "tulip", "lily")):
        for i in range(5):
            save(tmp_path / "Flowers 2" / name / f"{i}.png", (label * 50, i * 10, 0))
    return tmp_path / "Flowers 2"


def test_classes_are_subfolders(flowers):
    loaded = Folder(path=str(flowers)).load("test")
    assert loaded.name == "flowers-2"
    assert loaded.classes == ("lily", "rose", "tulip")
    assert loaded.shape == (3, 10, 12)
    assert sorted(loaded.ids) == list(range(15))
    red = (loaded.batch(slice(None))[0][:, 0, 0, 0] * 255).round().int().tolist()
    assert red == [{"rose": 0, "tulip": 50, "lily": 100}[loaded.classes[label]] for label in loaded.labels]


def test_holdout_cuts_one_pool(flowers):
    with pytest.raises(DatasetError, match=r"set dataset\.holdout"):
        Folder(path=str(flowers)).load("train")
    spec = Folder(path=str(flowers), holdout=0.2, select=3, calibrate=3)
    ids = [loaded.ids for loaded in map(spec.load, ("train", "select", "calibrate", "test"))]
    assert [len(part) for part in ids] == [6, 3, 3, 3]
    assert sorted(np.concatenate(ids)) == list(range(15))


def test_train_and_test_folders(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        for name in ("b", "a"):
            for i in range(count):
                save(tmp_path / part / name / f"{i}.jpg", (10, 20, 30))
    spec = Folder(path=str(tmp_path), select=1, calibrate=1)
    assert len(spec.load("train")) == 6
    assert len(spec.load("test")) == 4
    save(tmp_path / "val" / "stranger" / "0.jpg", (0, 0, 0))
    with pytest.raises(DatasetError, match=r"stranger/0\.jpg lies in none of the classes a, b"):
        spec.load("test")


def test_a_flat_folder_has_no_labels(tmp_path):
    save(tmp_path / "only.png", 7, mode="L")
    loaded = Folder(path=str(tmp_path), size=5, colour="grey").load("test")
    assert (len(loaded), loaded.shape, loaded.classes, loaded.labelled) == (1, (1, 5, 5), (), False)
    with pytest.raises(DatasetError, match="has no labels"):
        Folder(path=str(tmp_path), holdout=0.5).load("train")


def test_one_class_is_enough_and_mixing_is_refused(tmp_path):
    save(tmp_path / "one" / "0.png", 7, mode="L")
    assert Folder(path=str(tmp_path)).load("test").classes == ("one",)
    save(tmp_path / "stray.png", 7, mode="L")
    with pytest.raises(DatasetError, match=r"stray\.png lies in none of the classes one"):
        Folder(path=str(tmp_path)).load("test")


def test_sizes(tmp_path):
    save(tmp_path / "a.png", (1, 2, 3), size=(12, 10))
    save(tmp_path / "b.png", (1, 2, 3), size=(10, 12))
    with pytest.raises(DatasetError, match=r"b\.png is 12 x 10, the images before it are 10 x 12; set dataset\.size"):
        Folder(path=str(tmp_path)).load("test").batch(slice(None))
    assert Folder(path=str(tmp_path), size=7).load("test").batch(slice(None))[0].shape == (2, 3, 7, 7)


def test_the_crop_is_the_centre(tmp_path):
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    loaded = Folder(path=str(tmp_path), size=10, colour="grey").load("test")
    assert loaded.batch([0])[0].min() == 1


def test_paths_are_looked_up_in_the_data_folder_first(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path))
    save(tmp_path / "mine" / "x" / "0.png", (1, 1, 1))
    assert len(Folder(path="mine").load("test")) == 1
    with pytest.raises(DatasetError, match=r"no folder .*absent or absent; correct dataset\.path"):
        Folder(path="absent").load("test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty holds no images"):
        Folder(path="empty").load("test")


def png(width, height, mode_byte=2):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode_byte, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", png(60_000, 60_000), png(9_000, 9_000), png(20, 20)[:50], b"\xff\xd8\xff\xe0" + bytes(50)],
)
def test_broken_and_absurd_images_are_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.png cannot be read as an image: .*; replace or remove it"):
        Folder(path=str(tmp_path)).load("test").batch([0])


def test_kinds_of_images(tmp_path):
    Image.fromarray(np.full((4, 4), 0x8040, np.uint16)).save(tmp_path / "deep.png")
    save(tmp_path / "palette.gif", 0, (4, 4), "P")
    save(tmp_path / "alpha.png", (9, 9, 9, 0), (4, 4), "RGBA")
    save(tmp_path / "cmyk.jpg", (0, 0, 0, 0), (4, 4), "CMYK")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    loaded = Folder(path=str(tmp_path)).load("test").subset(slice(None))
    order = np.argsort(loaded.ids)
    first = (loaded.batch(order)[0][:, 0, 0, 0] * 255).round().int().tolist()
    assert scan(tmp_path).names == ("alpha.png", "cmyk.jpg", "deep.png", "palette.gif")
    assert first[:3] == [9, 255, 0x80]


def test_links(tmp_path):
    save(tmp_path / "real" / "a" / "0.png", (1, 1, 1))
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert Folder(path=str(tmp_path / "linked")).load("test").digest
    (tmp_path / "real" / "a" / "loop").symlink_to(tmp_path / "real")
    with pytest.raises(DatasetError, match="nested more than eight deep"):
        Folder(path=str(tmp_path / "real")).load("test")
    (tmp_path / "real" / "a" / "loop").unlink()
    (tmp_path / "real" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DatasetError, match=r"gone\.png cannot be read"):
        Folder(path=str(tmp_path / "real")).load("test")


@pytest.mark.parametrize("hashed", [2**28, 0])
def test_the_digest_follows_the_files_and_not_their_place(flowers, hashed, monkeypatch):
    monkeypatch.setattr(folder, "HASHED", hashed)
    before = Folder(path=str(flowers)).load("test")
    assert Folder(path=str(flowers), size=6).load("test").digest != before.digest
    (flowers.parent / "elsewhere").mkdir()
    moved = flowers.rename(flowers.parent / "elsewhere" / flowers.name)
    assert Folder(path=str(moved)).load("test").digest == before.digest
    path = save(moved / "rose" / "0.png", (77, 0, 0))
    os.utime(path, ns=(1, 1))
    after = Folder(path=str(moved)).load("test")
    assert after.digest != before.digest
    assert 77 in (after.batch(slice(None))[0] * 255).round()


def test_pixels_are_kept_where_they_fit_and_equal_where_not(flowers, monkeypatch):
    remembered = Folder(path=str(flowers)).load("test")
    once = remembered.batch(slice(None))[0]
    monkeypatch.setattr(decoded, "KEPT", 0)
    moved = flowers.rename(flowers.parent / "moved")
    assert torch.equal(remembered.batch(slice(None))[0], once)  # the files are gone, the pixels are not
    read_again = Folder(path=str(moved)).load("test")
    images = {int(i): image for i, image in zip(*read_again.batch(slice(None))[::-2], strict=True)}
    assert all(torch.equal(images[int(i)], image) for i, image in zip(remembered.ids, once, strict=True))
