"""Train: one architecture, one objective, one seed; best and last weights as safetensors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks import stopping
from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.environment import number
from tasks.fit import checkpoints_of, fit, read_outcome, write_outcome
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.networks import default_device, split_of
from tasks.progress import reporter
from tasks.store import Store
from tasks.torchrun import fit_by_torchrun

if TYPE_CHECKING:
    from robust.objectives.objective import Objective
    from robust.study import Study


@cached_task("train", version=1, roots=("robust.training",), tags=("heavy",))
def train(work: Work, store: Store) -> Manifest:
    """Train, or go on from the checkpoint that an interrupted run left under the same key."""
    folder = checkpoints_of(work)
    outcome = folder / "outcome"
    ranks = ranks_of(work)
    with stopping.saves_its_state():
        if ranks > 1:
            fit_by_torchrun(work, ranks, outcome)
        else:
            _fit_here(work, outcome)
    done = read_outcome(outcome)
    manifest = work.manifest(
        files={role: store.put(outcome / name, name) for role, name in done["files"].items()},
        metrics=done["metrics"],
        timings={"seconds": done["seconds"]},
    )
    shutil.rmtree(folder, ignore_errors=True)  # the result holds all that the checkpoint was kept for
    return manifest


def ranks_of(work: Work) -> int:
    """How many processes share the training."""
    return int(work.settings["objective"]["training"].get("ranks", 1))


def _fit_here(work: Work, outcome: Path) -> None:
    from robust.ranks import ALONE

    trained = fit(work, ALONE, work.context["device"], reporter(work.label), stopping.requested)
    outcome.mkdir(parents=True, exist_ok=True)
    write_outcome(trained, outcome)


def threads() -> int:
    """Threads within one training: one, unless ROBUST_THREADS says otherwise.

    The bytes then do not depend on the machine's core count, and two threads that wait for each other on a busy machine
    are many times slower than one.
    """
    return int(number("ROBUST_THREADS", 1, least=1, whole=True))


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
            context={
                "dataset": study.dataset.settings(),
                "device": device,
                "threads": threads(),
                "ranks": objective.training.ranks,
                "checkpoint_seconds": number("ROBUST_CHECKPOINT_SECONDS", 60),
            },
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
