"""Cached tasks under Prefect: `Cached` the second time, in any process; mirrors of our record; one at a time a key."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from example_tasks import count, huge, total
from prefect import flow
from prefect.results import ResultRecord
from prefect.task_runners import ProcessPoolTaskRunner

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def make(session_home, tmp_path):
    def make(label="a", **settings):
        context = {"log": str(tmp_path / "log"), "seconds": settings.pop("seconds", 0)}
        return count.work(label, settings={"test": tmp_path.name, **settings}, context=context, home=session_home)

    return make


@pytest.fixture
def times(tmp_path):
    return lambda: len((tmp_path / "log").read_text().splitlines())


@flow
def states(*works):
    """Names of the states of the works, one after the other."""
    return [count.state(work).name for work in works]


def test_cached_the_second_time_whatever_stands_outside_the_key(make, times):
    work = make(steps=1)
    renamed = work.model_copy(update={"label": "b", "context": {**work.context, "mlflow": "run-2"}})
    assert states(work, work, renamed, make(steps=2)) == ["Completed", "Cached", "Cached", "Completed"]
    assert states(work) == ["Cached"]
    assert times() == 2


def test_records_are_json_and_small(make, session_home):
    work = make(steps=1)
    states(work)
    record = json.loads((session_home.results / work.key).read_text())
    assert record["metadata"]["serializer"]["type"] == "json"
    assert json.loads(record["result"])["data"]["key"] == work.key


def test_upstream_futures_are_resolved_before_the_key(make, session_home):
    @flow
    def chain():
        first = [count.submit(make(name, steps=i)) for i, name in enumerate("ab")]
        work = total.work("sum", home=session_home)
        done = total.submit(work, upstream=dict(zip("ab", first)))
        return [done.result(), done.state.name]

    (manifest, name), (again, name_again) = chain(), chain()
    assert manifest == again
    assert [name, name_again] == ["Completed", "Cached"]
    assert [text.count("steps") for text in manifest.facts["texts"]] == [1, 1]


@pytest.mark.parametrize("how", ["deleted", "flipped", "record deleted"])
def test_damage_is_computed_again_and_then_cached(make, times, how, session_home):
    from tasks.store import Store

    work = make(steps=1)
    states(work)
    path = Store.of(session_home).get(count.explain(work).manifest.files["value"])
    if how == "record deleted":
        (session_home.store / "records" / "count" / f"{work.key}.json").unlink()
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"?" + path.read_bytes()[1:])
    assert states(work, work) == ["Completed", "Cached"]
    assert times() == 2


def test_an_altered_prefect_record_is_replaced_by_ours(make, times, session_home):
    work = make(steps=1)
    states(work)
    path = session_home.results / work.key
    true = path.read_bytes()
    length = str(count.explain(work).manifest.metrics["length"])
    path.write_bytes(true.replace(f'\\"length\\": {length}'.encode(), b'\\"length\\": 9999'))
    assert path.read_bytes() != true

    @flow
    def read():
        return count(work).metrics["length"]

    assert read() == int(length)
    assert times() == 1


def test_what_was_done_without_prefect_is_cached_too(make, times, session_home):
    work = make(steps=1)
    done = count.run(work)
    assert states(work) == ["Cached"]
    assert times() == 1
    assert ResultRecord.deserialize((session_home.results / work.key).read_bytes()).result == done


def test_refreshing_computes_again(make, times, monkeypatch):
    from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings

    work = make(steps=1)
    states(work)
    with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
        assert states(work) == ["Completed"]
    assert times() == 2


def test_threads_that_want_the_same_wait_for_one(make, times):
    @flow
    def both():
        futures = [count.submit(make(steps=1, seconds=0.5)) for _ in range(3)]
        for future in futures:
            future.wait()
        return sorted(future.state.name for future in futures)

    assert both() == ["Cached", "Cached", "Completed"]
    assert times() == 1


def test_a_result_too_large_fails_the_task(session_home):
    @flow
    def run():
        return huge.state(huge.work(home=session_home)).message

    assert "may pass between tasks" in run()


def test_another_process_of_the_pool_does_the_work_and_it_is_cached(make, times):
    work = make(steps=1)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def pooled():
        future = count.submit(work)
        return future.result().key, future.state.name

    assert pooled() == (work.key, "Completed")
    assert states(work) == ["Cached"]
    assert times() == 1
    assert Path(str(work.context["log"])).read_text().split() != [str(os.getpid())]


FRESH = """
import sys; sys.path.insert(0, "tests/tasks")
from tasks.home import Home; from tasks.server import begin
server = begin(Home.at(sys.argv[1]))
from prefect import flow; from example_tasks import count; from tasks.cache import Work
@flow
def fresh(): return count.state(Work.model_validate_json(sys.argv[2])).name
with server: print(fresh())
"""


def test_fresh_processes_under_other_hash_seeds_share_server_and_work(make, times, session_home, repository):
    work = make(steps=1, seconds=1.0)
    command = [sys.executable, "-c", FRESH, str(session_home.root), work.model_dump_json()]
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=repository, env={**environment, "PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    names = sorted(process.communicate()[0].strip() for process in running)
    assert names == ["Cached", "Completed"]
    assert times() == 1
    assert states(work) == ["Cached"]


def test_no_task_run_is_left_unfinished(session_home, make):
    states(make(steps=1))
    with closing(sqlite3.connect(session_home.prefect / "prefect.db")) as database:
        query = "select count(*) from task_run where state_type in ('RUNNING', 'PENDING', 'SCHEDULED')"
        deadline = time.monotonic() + 30
        while database.execute(query).fetchone()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert database.execute("select count(*) from task_run where state_name = 'Cached'").fetchone()[0] > 3
