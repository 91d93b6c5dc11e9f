"""Devices: one task each over several processes, freed by kill -9, collected without a deadlock; no GPU needed."""

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tasks import devices, networks, stopping
from tasks.cache import cached_task
from tasks.devices import DeviceError, gpus, held, on_its_device, taken

FAKE = ("fake-0", "fake-1")
TAKER = """
import json, os, sys, time
from pathlib import Path
from tasks.devices import taken
folder, count = Path(sys.argv[1]), int(sys.argv[2])
with open(folder / "log", "a", buffering=1) as log:
    for turn in range(int(sys.argv[3])):
        with taken(("fake-0", "fake-1"), folder, count) as names:
            came = time.monotonic()
            print(*names, flush=True)
            time.sleep(float(sys.argv[4]))
            gone = time.monotonic()
        for name in names:
            log.write(json.dumps([name, came, gone, os.getpid()]) + "\\n")
"""


def start(folder, repository, count=1, turns=1, seconds=0.0):
    command = [sys.executable, "-c", TAKER, str(folder), str(count), str(turns), str(seconds)]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)


def test_four_processes_never_hold_one_of_two_devices_twice(tmp_path, repository):
    takers = [start(tmp_path, repository, turns=6, seconds=0.05) for _ in range(3)]
    takers.append(start(tmp_path, repository, count=2, turns=2, seconds=0.05))  # one that wants both
    assert [taker.wait(60) for taker in takers] == [0] * 4
    for taker in takers:
        taker.stdout.close()
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(rows) == 3 * 6 + 2 * 2
    assert {pid for *_, pid in rows} == {taker.pid for taker in takers}
    for device in FAKE:
        spans = sorted((came, gone) for name, came, gone, _ in rows if name == device)
        assert spans, f"{device} was never used"
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_killed_holder_frees_its_device(tmp_path, repository):
    with start(tmp_path, repository, seconds=60) as taker:
        assert taker.stdout.readline() == "fake-0\n"
        assert [held(name, tmp_path) for name in FAKE] == [True, False]
        with taken(FAKE, tmp_path) as ours:
            assert ours == ("fake-1",)
        taker.send_signal(signal.SIGKILL)
        taker.wait()
    started = time.monotonic()
    with taken(FAKE, tmp_path, 2) as ours:
        assert ours == FAKE
        assert time.monotonic() - started < 1
    assert not any(held(name, tmp_path) for name in FAKE)


def test_more_devices_than_there_are_is_an_error_and_not_a_wait(tmp_path):
    with pytest.raises(DeviceError, match=r"3 device\(s\) are wanted and this process sees 2: fake-0, fake-1"):
        taken(FAKE, tmp_path, 3).__enter__()
    with pytest.raises(DeviceError, match="sees 0"):
        taken((), tmp_path).__enter__()


def test_who_waits_for_a_device_can_be_stopped(tmp_path, monkeypatch):
    from robust.training import Interrupted

    with ExitStack() as held_here:
        held_here.enter_context(taken(FAKE, tmp_path, 2))
        monkeypatch.setattr(stopping, "requested", lambda: True)
        with pytest.raises(Interrupted, match="waiting for a device"):
            held_here.enter_context(taken(FAKE, tmp_path))


@cached_task("placed")
def placed(work, store):
    """Says where it was put."""
    return work.manifest(facts={"device": work.context["device"], "devices": work.context.get("devices", [])})


class Selected:
    """Stands for `torch.cuda.device` where there is no GPU: the current device of a block."""

    def __init__(self, device):
        self.device = device

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_a_task_for_a_gpu_gets_one_of_its_own_and_its_key_does_not_know_which(home, monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: {"gpu-a": "cuda:0", "gpu-b": "cuda:1"})
    monkeypatch.setattr("torch.cuda.device", Selected)
    work = placed.work("a", settings={"n": 1}, context={"device": "cuda"}, home=home)
    with taken(("gpu-a",), home.locks):
        assert placed.compute(work).facts["device"] == "cuda:1"
    assert placed.compute(work).key == work.key
    two = placed.work("b", settings={"n": 2}, context={"device": "cuda", "ranks": 2}, home=home)
    assert placed.compute(two).facts["devices"] == ["cuda:0", "cuda:1"]
    named = placed.work("c", settings={"n": 3}, context={"device": "cuda:1"}, home=home)
    assert placed.compute(named).facts["device"] == "cuda:1"
    three = placed.work("d", settings={"n": 4}, context={"device": "cuda", "ranks": 3}, home=home)
    with pytest.raises(DeviceError, match=r"d wants 3 device\(s\) of kind cuda, this process sees 2"):
        placed.compute(three)


def test_a_task_for_the_cpu_takes_nothing(home, monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: pytest.fail("nobody asks for GPUs"))
    work = placed.work("a", settings={"n": 1}, context={"device": "cpu", "ranks": 2}, home=home)
    with on_its_device(work) as same:
        assert same is work


def test_robust_device_keeps_gpus_out(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("ROBUST_DEVICE", raising=False)
    assert networks.default_device() == "cuda"
    monkeypatch.setenv("ROBUST_DEVICE", "cpu")
    assert networks.default_device() == "cpu"
    monkeypatch.setenv("ROBUST_DEVICE", "tpu")
    with pytest.raises(DeviceError, match="ROBUST_DEVICE=tpu: use cpu or cuda"):
        networks.default_device()
    monkeypatch.setenv("ROBUST_DEVICE", "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpus() == {}
    with pytest.raises(DeviceError, match="torch sees no GPU"):
        networks.default_device()
