"""Measure: one network, one diagnostic; its rows and figures as JSON, its pictures as arrays."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, default_device, network_of, one_thread, snapshot_networks, snapshots_of, split_of
from tasks.store import Store

if TYPE_CHECKING:
    from robust.diagnostics.diagnostic import Diagnostic
    from robust.objectives.objective import Objective
    from robust.study import Study


@cached_task("measure", version=1, roots=("robust.diagnostics.diagnostic", "robust.training"))
def measure(work: Work, store: Store) -> Manifest:
    """Run the diagnostic on the network, its training samples, its history and its snapshots."""
    import numpy as np

    from robust.diagnostics.diagnostic import Subject
    from robust.registry import create
    from robust.report.document import tidy
    from robust.training import fitted_samples

    one_thread()
    settings, context = work.settings, work.context
    objective = cast("Objective", create("objective", settings["objective"]))
    subject = Subject(
        classifier=network_of(work, store),
        train=fitted_samples(objective, split_of(context["dataset"], "train"), settings["training_seed"]),
        test=split_of(context["dataset"], "test"),
        seed=settings["seed"],
        history=json.loads(store.read(work.reads["history"])),
        snapshots=snapshot_networks(work, store),
    )
    found = cast("Diagnostic", create("diagnostic", settings["diagnostic"])).measure(subject)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *(np.asarray(picture["images"]) for picture in found.pictures))
    pictures = [{key: value for key, value in picture.items() if key != "images"} for picture in found.pictures]
    content = tidy({"rows": found.rows, "figures": found.figures, "pictures": pictures})
    return work.manifest(
        files={
            "found": store.put(json.dumps(content, sort_keys=True, allow_nan=False).encode(), "measured.json"),
            "pictures": store.put(buffer.getvalue(), "pictures.npz"),
        }
    )


def measure_works(study: Study, built: Built, data: Manifest) -> dict[str, Work]:
    """The diagnostics of one network, by label."""
    digests = cast("dict[str, str]", data.facts["digests"])
    device = default_device()
    files = built.trained.files
    return {
        entry.label: measure.work(
            label=f"{built.id}/{entry.label}",
            settings={
                **built.parts,
                "objective": built.network.objective.method.settings(),
                "training_seed": built.network.seed,
                "diagnostic": entry.method.settings(),
                "seed": study.evaluation_seed,
            },
            reads={
                **built.reads(),
                "history": files["history"].sha256,
                "train": digests["train"],
                "test": digests["test"],
                **snapshots_of(built.trained),
            },
            roots=modules_behind(entry.method, *built.methods),
            numerics=Numerics.of(device),
            context={"dataset": study.dataset.settings(), "device": device},
            home=built.home,
        )
        for entry in study.diagnostics
        if entry.on.covers(built.network.group)
    }


def measured(manifest: Manifest, network: str, label: str, store: Store) -> dict[str, list[dict[str, Any]]]:
    """What a diagnostic found, each row, figure and picture marked with network and diagnostic."""
    import numpy as np

    found = json.loads(store.read(manifest.files["found"]))
    with np.load(io.BytesIO(store.read(manifest.files["pictures"])), allow_pickle=False) as arrays:
        for i, picture in enumerate(found["pictures"]):
            picture["images"] = arrays[f"arr_{i}"]
    return {kind: [{"model": network, "diagnostic": label, **row} for row in rows] for kind, rows in found.items()}
