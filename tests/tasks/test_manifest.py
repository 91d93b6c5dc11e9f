"""Manifests: small, finite, plain JSON."""

import pytest
from pydantic import ValidationError

from tasks.manifest import MAX_BYTES, File, Manifest, TooLarge, text_of

SHA = "a" * 64


def test_round_trip_through_json():
    file = File(name="weights.safetensors", sha256=SHA, bytes=3)
    manifest = Manifest(task="train", key="train-1", files={"weights": file}, metrics={"accuracy": 0.5, "epochs": 3})
    assert Manifest.model_validate_json(text_of(manifest)) == manifest


def test_volatile_files_are_nothing_to_depend_on():
    files = {"ledger": File(name="l", sha256=SHA, bytes=1), "costs": File(name="c", sha256=SHA, bytes=1, volatile=True)}
    assert Manifest(task="t", key="k", files=files).digests() == {"ledger": SHA}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ValidationError, match="not a finite number"):
        Manifest(task="t", key="k", metrics={"loss": value})


def test_large_results_are_refused_by_name():
    with pytest.raises(TooLarge, match="train-1 has"):
        text_of(Manifest(task="train", key="train-1", facts={"logits": [0.125] * MAX_BYTES}))


@pytest.mark.parametrize("field", [{"sha256": "../../etc"}, {"bytes": -1}, {"name": ""}])
def test_a_file_is_validated(field):
    with pytest.raises(ValidationError):
        File(**{"name": "n", "sha256": SHA, "bytes": 1, **field})
