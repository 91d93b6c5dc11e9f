import pytest
import torch
from torch import nn

from robust.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    weights_of,
    write_atomically,
)
from robust.classifier import Classifier

WHO = {"model": "a", "seed": "0"}


def classifier(width: int = 3) -> Classifier:
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, width), nn.BatchNorm1d(width)))


def test_weights_survive_the_disk_bit_for_bit(tmp_path):
    first, second = classifier(), classifier()
    digest = save_weights(first, tmp_path / "w.safetensors")
    load_weights(second, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(weights_of(first).values(), weights_of(second).values()))
    assert save_weights(weights_of(second), tmp_path / "again.safetensors") == digest
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_weights_that_share_memory_or_are_transposed_are_written_too(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    save_weights({"a": shared, "b": shared.t()}, tmp_path / "w.safetensors")
    module = nn.Module()
    module.a, module.b = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3, 2))
    load_weights(Classifier(module), tmp_path / "w.safetensors")
    assert torch.equal(module.b, shared.t())


def test_weights_of_another_architecture_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(classifier(), path)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_weights(classifier(width=5), path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable"):
        load_weights(classifier(), path)


def test_a_checkpoint_belongs_to_one_training(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint({"x": torch.ones(2), "n": 3, "rows": [{"a": 1.0}]}, WHO, path)
    found = load_checkpoint(path, WHO)
    assert torch.equal(found["x"], torch.ones(2))
    assert (found["n"], found["rows"]) == (3, [{"a": 1.0}])
    with pytest.raises(CheckpointError, match="another seed"):
        load_checkpoint(path, {**WHO, "seed": "1"})


@pytest.mark.parametrize("kept", [0, 1, 100, -10])
def test_a_torn_checkpoint_is_refused_with_a_remedy(tmp_path, kept):
    path = tmp_path / "c.pt"
    save_checkpoint({"x": torch.ones(50)}, WHO, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="delete it to train again"):
        load_checkpoint(path, WHO)


def test_a_foreign_file_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
        load_checkpoint(tmp_path / "c.pt", WHO)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
