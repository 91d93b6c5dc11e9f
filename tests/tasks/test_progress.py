"""Progress lines: few, and always one at the end."""

import logging

from tasks import progress


def test_a_counter_tells_the_last_and_what_is_some_seconds_apart(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="robust.progress"):
        tell = progress.counter("evaluated", 4)
        for second, name in ((1, "a"), (6, "b"), (7, "c"), (8, "d")):
            now[0] = second
            tell(name)
    assert [record.getMessage() for record in caplog.records] == ["evaluated  2/4  b", "evaluated  4/4  d"]
