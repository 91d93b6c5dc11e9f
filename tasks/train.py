"""Train: one architecture, one objective, one seed; best and last weights as safetensors."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks import stopping
from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.networks import default_device, split_of
from tasks.progress import reporter
from tasks.store import Store

if TYPE_CHECKING:
    from robust.models.model import Model
    from robust.objectives.objective import Objective
    from robust.study import Study


@cached_task("train", version=1, roots=("robust.training",), tags=("heavy",))
def train(work: Work, store: Store) -> Manifest:
    """Train, or go on from the checkpoint that an interrupted run left under the same key."""
    from robust.registry import create
    from robust.training import save_weights, train

    settings, context = work.settings, work.context
    folder = work.folder.checkpoints / work.key
    with stopping.saves_its_state():
        trained = train(
            cast("Model", create("model", settings["model"])),
            cast("Objective", create("objective", settings["objective"])),
            split_of(context["dataset"], "train"),
            split_of(context["dataset"], "select"),
            seed=settings["seed"],
            folder=folder,
            device=context["device"],
            threads=context["threads"],
            listener=reporter(work.label),
            stop=stopping.requested,
        )
    with tempfile.TemporaryDirectory(dir=work.folder.checkpoints) as name:
        scratch = Path(name)
        for part, weights in (("best", trained.best), ("last", trained.last)):
            save_weights(weights, scratch / f"{part}.safetensors")
        files = {
            "best": store.put(scratch / "best.safetensors", "best.safetensors"),
            "last": store.put(scratch / "last.safetensors", "last.safetensors"),
            "history": store.put(json.dumps(trained.history).encode(), "history.json"),
        }
        for epoch, weights in trained.snapshots.items():
            save_weights(weights, scratch / f"epoch-{epoch}.safetensors")
            files[f"epoch-{epoch}"] = store.put(scratch / f"epoch-{epoch}.safetensors", f"epoch-{epoch}.safetensors")
    manifest = work.manifest(
        files=files,
        metrics={
            "best_epoch": trained.best_epoch,
            "forward": trained.forward,
            "backward": trained.backward,
            "restarts": trained.restarts,
        },
        timings={"seconds": trained.seconds},
    )
    shutil.rmtree(folder, ignore_errors=True)  # the result holds all that the checkpoint was kept for
    return manifest


def threads() -> int:
    """Threads within one training: one, unless ROBUST_THREADS says otherwise.

    The bytes then do not depend on the machine's core count, and two threads that wait for each other on a busy machine
    are many times slower than one.
    """
    given = os.environ.get("ROBUST_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else 1


def train_works(study: Study, data: Manifest, home: Home) -> dict[str, Work]:
    """The trainings of a study by network id; `data` is what `prepare` returned."""
    device = default_device()
    digests = cast("dict[str, str]", data.facts["digests"])
    works = {}
    for network in study.networks():
        model, objective = network.model.method, network.objective.method
        works[network.id] = train.work(
            label=network.id,
            settings={
                "model": model.settings(),
                "objective": objective.settings(),
                "inputs": data.facts["inputs"],
                "seed": network.seed,
            },
            reads={"train": digests["train"], "select": digests["select"], **_other_sets(objective)},
            roots=modules_behind(model, objective, study.dataset),
            numerics=Numerics.of(device, objective.training.precision),
            context={"dataset": study.dataset.settings(), "device": device, "threads": threads()},
            home=home,
        )
    return works


def _other_sets(objective: Objective) -> dict[str, str]:
    """Digests of further data sets that an objective is fitted to, such as outliers, by field."""
    from robust.datasets.dataset import DatasetSpec

    given = {field: getattr(objective, field) for field in type(objective).model_fields}
    return {
        f"set/{field}": split_of(value.settings(), getattr(objective, "part", "train")).digest
        for field, value in given.items()
        if isinstance(value, DatasetSpec)
    }
