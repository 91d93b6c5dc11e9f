"""Cached tasks without Prefect: done once, explained, verified, never served damaged."""

import json
import subprocess
import sys

import pytest
from example_tasks import count, huge, total

from tasks.manifest import TooLarge
from tasks.records import differences
from tasks.store import Store


@pytest.fixture
def make(home):
    def make(label="a", **settings):
        return count.work(label, settings=settings, context={"log": str(home.root / "log")})

    return make


@pytest.fixture
def times(home):
    return lambda: len((home.root / "log").read_text().splitlines())


def test_done_once(make, times):
    first = count.run(make(steps=1))
    assert count.run(make(steps=1)) == first
    assert times() == 1
    assert first.timings["task"] >= 0


def test_explain_names_the_field_that_changed(make):
    assert count.explain(make(steps=1, eps="8/255")).because == ("not done yet",)
    count.run(make(steps=1, eps="8/255"))
    hit = count.explain(make(steps=1, eps="8/255"))
    assert hit.hit
    assert hit.manifest.metrics == {"length": len(repr({"steps": 1, "eps": "8/255"}))}
    miss = count.explain(make(steps=2, eps="8/255"))
    assert (miss.hit, miss.because) == (False, ("settings.steps: 1 -> 2",))
    assert count.explain(make("b", steps=2)).because == ("not done yet",)


def test_explain_names_the_module_that_changed(make):
    work = make(steps=1)
    count.run(work)
    edited = work.model_copy(update={"code": {**work.code, "robust.threat": "0" * 16, "robust.new": "1" * 16}})
    assert count.explain(edited).because == ("code: robust.new is new", "code: robust.threat changed")


def test_differences_are_readable():
    old = {"reads": {"images": "a" * 64}, "settings": {"list": [{"x": 1}, {"x": 2}]}, "numerics": None}
    new = {"reads": {"images": "b" * 64}, "settings": {"list": [{"x": 1}, {"x": 3}], "more": [1, 2]}, "numerics": None}
    assert differences(old, new) == (
        "reads.images: aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "settings.list[1].x: 2 -> 3",
        "settings.more: nothing -> [1,2]",
    )


@pytest.mark.parametrize("how", ["deleted", "truncated", "flipped"])
def test_damaged_files_are_computed_again(make, times, home, how):
    work = make(steps=1)
    done = count.run(work)
    path = Store.of(home).get(done.files["value"])
    content = path.read_bytes()
    path.unlink()
    if how != "deleted":
        path.write_bytes(content[:-1] if how == "truncated" else b"?" + content[1:])
    found = count.explain(work)
    assert not found.hit
    assert found.because[0].startswith("damaged: value: ")
    assert count.run(work).files["value"] == done.files["value"]
    assert times() == 2
    assert count.explain(work).hit


@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied", "deleted"])
def test_damaged_records_are_computed_again(make, times, home, how):
    work = make(steps=1)
    count.run(work)
    record = home.store / "records" / "count" / f"{work.key}.json"
    text = record.read_text()
    record.write_text(
        {"truncated": text[:-5], "flipped": text.replace('"length":12', '"length":13'), "emptied": "", "deleted": ""}[
            how
        ]
    )
    if how == "deleted":
        record.unlink()
    assert record.exists() is (how != "deleted")
    assert not count.explain(work).hit
    count.run(work)
    assert times() == 2


def test_large_results_are_refused_and_not_recorded(home):
    with pytest.raises(TooLarge, match="huge-"):
        huge.run(huge.work())
    assert not huge.explain(huge.work()).hit


def test_volatile_files_do_not_reach_downstream_keys(make, home):
    work = make(steps=1)
    one = count.run(work)
    other = count.compute(work)
    assert one.files["clock"] != other.files["clock"]
    assert total.work(upstream={"a": one}).key == total.work(upstream={"a": other}).key


def test_keys_do_not_depend_on_the_process(make, repository, home):
    program = "import sys; sys.path.insert(0, 'tests/tasks'); from example_tasks import count; "
    program += "print(count.work('a', settings={'steps': 1, 'eps': '8/255'}).key)"
    keys = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True, capture_output=True, text=True, cwd=repository, env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert keys == {make(steps=1, eps="8/255").key}


def test_two_processes_compute_a_thing_once(make, times, home, repository):
    work = make(steps=1).model_copy(update={"context": {"log": str(home.root / "log"), "seconds": 1}})
    program = (
        "import sys; sys.path.insert(0, 'tests/tasks'); from example_tasks import count; from tasks.cache import Work; "
    )
    program += "print(count.run(Work.model_validate_json(sys.argv[1])).model_dump_json())"
    command = [sys.executable, "-c", program, work.model_dump_json()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) for _ in range(2)]
    outputs = [json.loads(process.communicate()[0]) for process in running]
    assert outputs[0] == outputs[1]
    assert times() == 1
