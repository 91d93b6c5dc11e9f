"""A task as the product writes them, for the tests of what surrounds it: it counts how often it was really done."""

import os
import time
from pathlib import Path

from tasks.cache import Work, cached_task
from tasks.manifest import Manifest
from tasks.store import Store


@cached_task("count", version=1, roots=("robust.threat",))
def count(work: Work, store: Store) -> Manifest:
    """Write a file that depends on the settings, and a line into the file that `context` names."""
    with Path(str(work.context["log"])).open("a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(float(str(work.context.get("seconds", 0))))
    value = store.put(repr(work.settings).encode(), "value.txt")
    clock = store.put(repr(time.time()).encode(), "clock.txt", volatile=True)
    return work.manifest(files={"value": value, "clock": clock}, metrics={"length": value.bytes})


@cached_task("sum")
def total(work: Work, store: Store) -> Manifest:
    """Reads what `count` wrote."""
    texts = [store.read(done.files["value"]).decode() for done in work.upstream.values()]
    return work.manifest(facts={"texts": list(texts)})


@cached_task("huge")
def huge(work: Work, store: Store) -> Manifest:
    """Returns more than may pass between tasks."""
    return work.manifest(facts={"logits": [0.125] * 20_000})
