"""A clock that jumps, by hours and into the past: what is done stays done, and no duration turns negative."""

import itertools
import os
import time

import pytest
from example_tasks import count

from tasks.spool import Event, RunAddress, Spool


@pytest.fixture
def jumping(monkeypatch):
    """Every look at the wall clock is a day before the last one; the monotonic clock goes on."""
    start, days = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: start - 86_400 * next(days))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * (start - 86_400 * next(days))))


@pytest.mark.parametrize("moment", [0, 4_000_000_000], ids=["1970", "2096"])
def test_dates_of_files_mean_nothing_to_the_cache(home, tmp_path, moment):
    work = count.work("a", settings={"steps": 1}, context={"log": str(tmp_path / "log")}, home=home)
    done = count.run(work)
    for path in home.root.rglob("*"):
        os.utime(path, (moment, moment))
    assert count.explain(work).hit
    assert count.run(work) == done
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_task_measures_its_time_by_another_clock(home, tmp_path, jumping):
    work = count.work("a", settings={"steps": 1}, context={"log": str(tmp_path / "log"), "seconds": 0.05}, home=home)
    assert 0.05 <= count.run(work).timings["task"] < 60


def test_events_are_delivered_in_the_order_in_which_they_happened(tmp_path, jumping):
    spool, address = Spool(tmp_path / "spool"), RunAddress(experiment="tiny", key="run")
    events = [Event(what="tags", address=address, data={"tags": {"n": str(n)}}) for n in range(5)]
    assert events[0].at > events[-1].at, "the clock did jump"
    for event in events:
        spool.append(event)
    delivered: list[Event] = []
    assert spool.drain(delivered.append) == 0
    assert delivered == events
