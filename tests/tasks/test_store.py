"""The store: what is damaged is never served, what is put twice is stored once."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.store import Damaged, Store, StoreFull

CONTENT = b"weights" * 1000


@pytest.fixture(params=["folder", "file-url", "memory"])
def store(request, tmp_path):
    url = {
        "folder": str(tmp_path / "store"),
        "file-url": (tmp_path / "store").as_uri(),
        "memory": f"memory://{tmp_path.name}/store",
    }[request.param]
    return Store(url, tmp_path / "cache")


def test_content_comes_back_from_bytes_and_files(store, tmp_path):
    (tmp_path / "source").write_bytes(CONTENT)
    first, second = store.put(CONTENT, "w"), store.put(tmp_path / "source", "w")
    assert first == second
    assert (first.sha256, first.bytes) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert store.get(first).read_bytes() == store.read(first.sha256) == CONTENT


def _damage(store, file, how):
    path = store._object(file.sha256)
    if how == "deleted":
        store.remove(path)
    else:
        content = {"truncated": CONTENT[:-1], "flipped": b"W" + CONTENT[1:], "emptied": b""}[how]
        store._filesystem.pipe_file(path, content)


@pytest.mark.parametrize("how", ["deleted", "truncated", "flipped", "emptied"])
def test_damage_is_found_never_served_and_repaired_by_putting_again(store, how):
    file = store.put(CONTENT, "w")
    _damage(store, file, how)
    for use in (store.verify, store.get, store.read):
        with pytest.raises(Damaged, match=file.sha256[:12]):
            use(file)
    store.put(CONTENT, "w")
    assert store.read(file) == CONTENT


def test_a_damaged_local_copy_of_a_remote_entry_is_fetched_again(tmp_path):
    store = Store(f"memory://{tmp_path.name}/s", tmp_path / "cache")
    file = store.put(CONTENT, "w")
    store.get(file).write_bytes(b"rotten")
    assert store.read(file) == CONTENT


def test_deleting_is_final_and_harmless_twice(store):
    file = store.put(CONTENT, "w")
    store.delete(file)
    store.delete(file)
    with pytest.raises(Damaged):
        store.verify(file)


def test_many_threads_put_the_same_content(store):
    with ThreadPoolExecutor(8) as pool:
        files = set(pool.map(lambda _: store.put(CONTENT, "w"), range(32)))
    assert len(files) == 1
    assert store.read(files.pop()) == CONTENT


def test_no_half_written_file_is_left_by_a_full_disk(tmp_path, repository):
    program = (
        "import resource, signal, sys; from pathlib import Path; from tasks.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: Store(sys.argv[1], Path(sys.argv[2])).put(b'x' * 100_000, 'w')\n"
        "except OSError as error: print(type(error).__name__)\n"
        "else: raise SystemExit('no error')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "s"), str(tmp_path / "c")]
    subprocess.run(command, check=True, cwd=repository)
    assert [p for p in (tmp_path / "s").rglob("*") if p.is_file()] == []


def test_a_store_without_space_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.store.os.replace", full)
    with pytest.raises(StoreFull, match="free space there"):
        Store(str(tmp_path / "s"), tmp_path / "c").put(CONTENT, "w")
    assert [p for p in (tmp_path / "s").rglob("*") if p.is_file()] == []


def test_addresses_cannot_leave_the_store(tmp_path):
    store = Store(str(tmp_path / "s"), tmp_path / "c")
    with pytest.raises(ValueError, match="not a sha256"):
        store.get("../../etc/passwd")


def test_a_put_killed_in_the_middle_shows_nothing(tmp_path, repository):
    program = (
        "import os, sys; from pathlib import Path; import tasks.store as s\n"
        "s.os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "s.Store(sys.argv[1], Path(sys.argv[2])).put(b'x' * 1000, 'w')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "s"), str(tmp_path / "c")]
    assert subprocess.run(command, check=False, cwd=repository).returncode == -9
    store = Store(str(tmp_path / "s"), Path(tmp_path / "c"))
    with pytest.raises(Damaged, match="missing"):
        store.verify(hashlib.sha256(b"x" * 1000).hexdigest())
