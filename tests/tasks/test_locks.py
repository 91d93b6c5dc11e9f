"""Locks: exclusive between threads and processes, gone with their process, cheap to wait for."""

import asyncio
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from tasks.locks import FileLocks, LockTimeout, exclusive

HOLDER = (
    "import sys, time; from pathlib import Path; from tasks.locks import FileLocks\n"
    "FileLocks(Path(sys.argv[1])).acquire_lock('train-1', 'other')\n"
    "print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def locks(tmp_path):
    return FileLocks(tmp_path)


@pytest.fixture
def other_process(tmp_path, repository):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_it_is_a_lock_manager(locks):
    from prefect.locking.protocol import LockManager

    assert isinstance(locks, LockManager)
    assert isinstance(pickle.loads(pickle.dumps(locks)), LockManager)


def test_one_holder_at_a_time(locks):
    assert locks.acquire_lock("k", "a")
    assert locks.acquire_lock("k", "a")  # once more by the same holder is no dead end
    assert locks.is_locked("k")
    assert locks.is_lock_holder("k", "a")
    assert not locks.is_lock_holder("k", "b")
    assert not locks.acquire_lock("k", "b", acquire_timeout=0)
    assert not locks.wait_for_lock("k", timeout=0)
    with pytest.raises(ValueError, match="does not hold"):
        locks.release_lock("k", "b")
    locks.release_lock("k", "a")
    assert not locks.is_locked("k")
    assert locks.wait_for_lock("k")


def test_kill_minus_nine_frees_the_lock_at_once(locks, other_process):
    assert locks.is_locked("train-1")
    assert not locks.acquire_lock("train-1", "me", acquire_timeout=0.2)
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    started = time.monotonic()
    assert locks.acquire_lock("train-1", "me", acquire_timeout=5)
    assert time.monotonic() - started < 1
    locks.release_lock("train-1", "me")


def test_prefects_own_file_lock_outlives_its_process(tmp_path, repository):
    """Why ours exists: if this fails, Prefect has mended it and `FileLocks` can go."""
    from prefect.locking.filesystem import FileSystemLockManager

    program = HOLDER.replace("from tasks.locks import FileLocks", "from prefect.locking.filesystem import *").replace(
        "FileLocks(", "FileSystemLockManager("
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert FileSystemLockManager(tmp_path).is_locked("train-1")


def test_waiting_costs_no_processor_time(locks, other_process):
    started = time.process_time()
    assert not locks.acquire_lock("train-1", "me", acquire_timeout=1.0)
    assert time.process_time() - started < 0.2


def test_threads_wait_for_each_other(tmp_path):
    inside, most = [], []

    def work():
        with exclusive(tmp_path / "device.lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_timeout_says_what_it_waited_for(tmp_path, locks, other_process):
    with pytest.raises(LockTimeout, match=r"train-1\.lock"), exclusive(tmp_path / "train-1.lock", timeout=0.1):
        pass


def test_async_and_expiry(locks):
    assert asyncio.run(locks.aacquire_lock("k", "a", hold_timeout=0.1))
    assert asyncio.run(locks.await_for_lock("k", timeout=5))
    assert not locks.is_lock_holder("k", "a")


def test_strange_keys_become_safe_file_names(locks, tmp_path):
    assert locks.acquire_lock("../../etc/x", "a")
    assert [p.parent for p in tmp_path.rglob("*.lock")] == [tmp_path]
    locks.release_lock("../../etc/x", "a")
