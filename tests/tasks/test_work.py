"""Keys: every declared field changes them, nothing else does, and accident is guarded against by golden values."""

import pytest
from pydantic import ValidationError

from tasks.manifest import File, Manifest
from tasks.work import Numerics, OtherCode, Work

SHA, OTHER = "a" * 64, "b" * 64
WEIGHTS = Manifest(task="train", key="train-1", files={"weights": File(name="w", sha256=SHA, bytes=1)})
BASE = {
    "task": "evaluate",
    "version": 1,
    "settings": {"attack": {"name": "pgd", "steps": 20, "eps": "8/255"}, "shard": 0},
    "reads": {"images": SHA},
    "upstream": {"model": WEIGHTS},
    "code": {"robust.attacks.pgd": "0123"},
    "numerics": Numerics(torch="2.13", device="cpu", dtype="float32"),
    "label": "small-cnn/pgd/0",
}


def _key(**changes):
    return Work(**{**BASE, **changes}).key


def test_golden_keys():
    """These change only on purpose: with them, every result that users have kept is computed again."""
    assert _key() == "evaluate-d69fb5383ad9314b"
    assert Work(task="train").key == "train-67c6cea8c8de628e"


CHANGES = {
    "task": "certify",
    "version": 2,
    "settings": {"attack": {"name": "pgd", "steps": 40, "eps": "8/255"}, "shard": 0},
    "reads": {"images": OTHER},
    "upstream": {"model": WEIGHTS.model_copy(update={"files": {"weights": File(name="w", sha256=OTHER, bytes=1)}})},
    "code": {"robust.attacks.pgd": "4567"},
    "numerics": Numerics(torch="2.14", device="cpu", dtype="float32"),
}
OUTSIDE = {
    "label": "another",
    "home": "/another",
    "context": {"mlflow": "run"},
    "roots": ("robust.attacks.pgd",),
    "upstream": {"model": WEIGHTS.model_copy(update={"timings": {"task": 3.0}, "metrics": {"accuracy": 0.5}})},
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_declared_field_changes_the_key(field):
    assert _key(**{field: CHANGES[field]}) != _key()


@pytest.mark.parametrize("field", OUTSIDE)
def test_what_does_not_change_the_result_does_not_change_the_key(field):
    assert _key(**{field: OUTSIDE[field]}) == _key()


def test_every_field_is_one_or_the_other():
    assert set(Work.model_fields) == set(CHANGES) | set(OUTSIDE)


@pytest.mark.parametrize("numerics", [{"device": "cuda"}, {"dtype": "float64"}, {"torch": "2.14"}])
def test_every_part_of_the_numerics_changes_the_key(numerics):
    assert _key(numerics=BASE["numerics"].model_copy(update=numerics)) != _key()


def test_the_order_of_settings_does_not():
    assert _key(settings=dict(reversed(BASE["settings"].items()))) == _key()


def test_devices_of_one_kind_are_one_class():
    assert Numerics.of("cuda:1", "torch.float32") == Numerics.of("cuda:0")


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"path": object()}, {"norms": {"l2", "linf"}}])
def test_settings_that_have_no_key_are_refused_where_they_enter(bad):
    with pytest.raises((ValidationError, ValueError)):
        Work(task="train", settings=bad)


@pytest.mark.parametrize("bad", [{"task": "Train!"}, {"reads": {"images": "/data/x.png"}}, {"unknown": 1}])
def test_other_mistakes_are_refused(bad):
    with pytest.raises(ValidationError):
        Work(**{**BASE, **bad})


def test_upstream_may_come_later():
    early = Work(**{**BASE, "upstream": {}})
    assert early.reading({"model": WEIGHTS}).key == _key()
    assert early.reading(None) is early


def test_another_version_of_the_code_is_refused_by_name():
    work = Work(**{**BASE, "numerics": None, "roots": ("robust.threat",), "code": {"robust.threat": "0" * 16}})
    with pytest.raises(OtherCode, match=r"robust\.threat"):
        work.check_code()


def test_another_torch_is_refused():
    with pytest.raises(OtherCode, match=r"torch 1\.0"):
        Work(**{**BASE, "code": {}, "numerics": Numerics(torch="1.0")}).check_code()
