"""A training shared by several processes: `torchrun` as a child of the training task, one rank a device.

The task hands its work over in a file, passes progress on, asks for a polite stop by a file, and ends everything by
closing the pipe that all ranks watch: however the task ends, kill -9 included, the kernel closes it, and they are gone.
When a rank is lost, torchrun and the broken connection end the others; the task fails, and the same work done again
goes on from the checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks import stopping
from tasks.fit import OUTCOME
from tasks.progress import reporter
from tasks.work import Work

if TYPE_CHECKING:
    from robust.progress import Listener

WORK, STOP, LOG = "work.json", "stop", "ranks.log"  # files between the task and its ranks
POLITE_SECONDS = 6.0  # for a checkpoint after a request to stop; what is lost after it is less than a minute's work
END_SECONDS = 5.0  # between closing the pipe and SIGKILL


class RankError(RuntimeError):
    """A rank of a shared training ended before the training did; the message says how, and where its log is."""


def fit_by_torchrun(work: Work, ranks: int, folder: Path) -> None:
    """Train with so many ranks; what they leave is in the folder, as `tasks.fit.write_outcome` wrote it.

    Raises:
        Interrupted: if this process was asked to stop; the checkpoint is kept.
        TrainingError: if the training diverged.
        RankError: if a rank was lost, refused the work or failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / WORK).write_text(work.model_dump_json(), encoding="utf-8")
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command(ranks, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C is for us: we ask the ranks to save first
        )
    relay = threading.Thread(target=_relay, args=(process.stdout, reporter(work.label)), daemon=True)
    relay.start()
    try:
        asked = _wait(process, folder)
    finally:
        _end(process)
        relay.join(timeout=1.0)
    if not (folder / OUTCOME).exists():
        _explain(work, folder, asked)


def command(ranks: int, folder: Path) -> list[str]:
    """The command line of torchrun for ranks on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    return [*launcher, f"--nproc-per-node={ranks}", "-m", "tasks.rank", str(folder)]


def _environment() -> dict[str, str]:
    """Ours; the ranks find the modules that we find, and speak over the loopback."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    own.setdefault("OMP_NUM_THREADS", "1")
    if "lo" in {name for _, name in socket.if_nameindex()}:
        own.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it asks for the host's name, which may not resolve
    return own


def _relay(lines: IO[bytes], listener: Listener) -> None:
    """Pass on what rank 0 says about its progress; other lines are the libraries' own."""
    from robust.progress import Progress

    with lines:
        for line in lines:
            if line.startswith(b'{"step"'):
                listener(Progress(**json.loads(line)))


def _wait(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait for the end, or for as long as a polite stop may take; whether we were asked to stop."""
    until = None
    while process.poll() is None and (until is None or time.monotonic() < until):
        if until is None and stopping.requested():
            (folder / STOP).touch()
            until = time.monotonic() + POLITE_SECONDS
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
    return until is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """No rank outlives this."""
    if process.stdin is not None:
        process.stdin.close()  # every rank watches the other end
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _explain(work: Work, folder: Path, asked: bool) -> None:
    """Raise what the ranks raised, or say how one was lost."""
    from robust.trained import Interrupted, TrainingError

    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("failure-*.json"))]
    kinds = {"Interrupted": Interrupted, "TrainingError": TrainingError}
    if told:
        raise kinds.get(told[0]["kind"], RankError)(told[0]["message"])
    if asked:
        raise Interrupted("stopped before the ranks could save; the last checkpoint is kept")
    log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    cause = log.rpartition("Root Cause")[2]  # torchrun's account; above it stand the ranks that it ended itself
    signals = re.findall(r"Signal \d+ \((SIG\w+)\)", cause) or re.findall(r"\((SIG\w+)\)", cause)
    how = f"was killed by {signals[0]}" if signals else "failed"
    raise RankError(
        f"{work.label or work.key}: a rank of its training {how}, and the others were ended. The last checkpoint is "
        f"kept: start the same run again, and it goes on from there. The ranks' log is {folder / LOG}"
    )
