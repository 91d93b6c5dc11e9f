"""What `robust doctor` says about GPUs, on a machine that need not have any."""

from types import SimpleNamespace

import pytest

from flows import doctor
from tasks.devices import taken
from tasks.home import Home


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(doctor, "gpus", lambda: {"gpu-a": "cuda:0", "gpu-b": "cuda:1"})
    gpu = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda name: gpu)


def test_it_names_each_gpu_and_whether_a_task_has_it(tmp_path, two_gpus):
    with taken(("gpu-b",), Home.at(tmp_path).locks):
        first, second = doctor._gpus(tmp_path)
    assert (first["check"], second["check"]) == ("cuda:0", "cuda:1")
    assert first["detail"] == "Some GPU, 80 GiB, free (device-gpu-a.lock)"
    assert second["detail"] == "Some GPU, 80 GiB, in use by a task of this home (device-gpu-b.lock)"


@pytest.mark.parametrize(
    ("asked", "state", "said"), [("cpu", "fine", "as ROBUST_DEVICE says"), ("tpu", "wrong", "use cpu or cuda")]
)
def test_it_reads_robust_device(monkeypatch, asked, state, said):
    monkeypatch.setenv("ROBUST_DEVICE", asked)
    found = doctor._torch()
    assert found["state"] == state
    assert said in found["detail"]
