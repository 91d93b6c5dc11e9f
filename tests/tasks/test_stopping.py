"""A signal asks once and politely; a second one or a long wait ends the process; an echo of the first is nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from torch import nn, zeros

from robust.trained import Interrupted
from tasks import stopping

SCRIPT = """
import os, signal, sys, time
from tasks import stopping

stopping.PATIENCE_SECONDS = float(sys.argv[1])
with stopping.on_signals():
    try:
        os.kill(os.getpid(), signal.{first})
        time.sleep(5)
    except KeyboardInterrupt:
        print("asked", stopping.requested(), flush=True)
        time.sleep(float(sys.argv[2]))
        os.kill(os.getpid(), signal.{second})
        time.sleep(1)
        print("still here", flush=True)
"""

POOL = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from tasks import stopping

with stopping.deaf():
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), stopping.start_worker)
    worker = pool.submit(os.getpid).result()
os.kill(worker, signal.SIGINT)
os.kill(worker, signal.SIGTERM)
print(worker, pool.submit(stopping.requested).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def played(patience: float, pause: float, first: str = "SIGINT", second: str = "SIGINT"):
    words = [sys.executable, "-c", SCRIPT.format(first=first, second=second), str(patience), str(pause)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_ends_the_process(first, second):
    done = played(60, 0.7, first, second)
    assert (done.returncode, done.stdout) == (130, "asked True\n")
    assert done.stderr == stopping.LAST_WORDS + "\n"


def test_a_signal_and_its_echo_are_one():
    done = played(60, 0, "SIGTERM", "SIGINT")
    assert (done.returncode, done.stdout, done.stderr) == (0, "asked True\nstill here\n", "")


def test_patience_ends():
    done = played(0.3, 30)
    assert (done.returncode, done.stdout) == (130, "asked True\n")
    assert done.stderr == stopping.LAST_WORDS + "\n"


def test_a_worker_leaves_ctrl_c_to_its_parent_takes_a_request_and_ends_with_its_parent():
    done = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, requested = done.stdout.split()  # read to its end: nobody holds the pipe any more
    assert requested == "True"
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    assert "Traceback" not in done.stderr


def test_another_handler_does_not_keep_the_request_from_us():
    with stopping.on_signals():
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
        os.kill(os.getpid(), signal.SIGTERM)
        while not stopping.requested():  # a thread hears it
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, before)
    assert not stopping.requested()


def test_a_loop_that_saves_is_not_broken_off():
    with stopping.on_signals(), stopping.saves_its_state():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stopping.requested()
    assert not stopping.requested()


def test_what_a_library_makes_of_the_interrupt_is_one_again():
    def serialise() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("cannot be serialised") from None

    with pytest.raises(KeyboardInterrupt), stopping.on_signals():
        serialise()


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ValueError, match="its own"), stopping.on_signals():
        raise ValueError("its own")


def test_a_network_stops_between_passes(monkeypatch):
    network = nn.Linear(2, 1)
    stopping.stops_between_passes(network)
    network(zeros(1, 2))
    monkeypatch.setattr(stopping, "_asked", [])
    stopping.ask()
    with pytest.raises(Interrupted):
        network(zeros(1, 2))


def test_threads_started_deaf_block_signals_and_others_do_not():
    found = []

    def look() -> None:
        found.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= set(stopping.SIGNALS))

    for around in (stopping.deaf(), nullcontext()):
        thread = threading.Thread(target=look)
        with around:
            thread.start()
        thread.join()
    assert found == [True, False]
