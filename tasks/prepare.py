"""Prepare: fingerprint the splits of a dataset and measure what networks need to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.networks import split_of
from tasks.store import Store

if TYPE_CHECKING:
    from robust.datasets.dataset import DatasetSpec


@cached_task("prepare", version=1, roots=("robust.datasets.dataset",))
def prepare(work: Work, store: Store) -> Manifest:
    """Digests, sizes, class names, and mean and standard deviation of the training images."""
    splits = {name: split_of(work.context["dataset"], name) for name in ("train", "select", "calibrate", "test")}
    train = splits["train"]
    overlap = set(train.ids.tolist()) & (set(splits["select"].ids.tolist()) | set(splits["calibrate"].ids.tolist()))
    if overlap:
        raise ValueError(f"{train.name}: {len(overlap)} samples stand in the train split and in another")
    return work.manifest(
        facts={
            "inputs": train.inputs().model_dump(mode="json"),
            "digests": {name: split.digest for name, split in splits.items()},
            "sizes": {name: len(split) for name, split in splits.items()},
            "classes": list(train.classes),
        }
    )


def prepare_work(dataset: DatasetSpec, home: Home) -> Work:
    """The work of preparing `dataset`; its key follows the files themselves, so changed data are noticed."""
    settings = dataset.settings()
    digests = {name: split_of(settings, name).digest for name in ("train", "select", "calibrate", "test")}
    return prepare.work(
        label=dataset.name,
        settings={"dataset": {k: v for k, v in settings.items() if k != "download"}},
        reads=digests,
        roots=modules_behind(dataset),
        numerics=Numerics.of("cpu"),
        context={"dataset": settings},
        home=home,
    )
