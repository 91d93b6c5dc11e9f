"""Evaluate: one network, one evaluation, one shard of samples; ledger rows as parquet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import classifier_of, default_device, one_thread, split_of
from tasks.store import Store

if TYPE_CHECKING:
    from robust.datasets.dataset import Split
    from robust.evaluation import Evaluation
    from robust.study import Study


@cached_task("evaluate", version=1, roots=("robust.evaluation",))
def evaluate(work: Work, store: Store) -> Manifest:
    """Judge one shard; labels of model and evaluation are added when the ledger is put together."""
    from robust import ledger
    from robust.evaluation import judge
    from robust.registry import create

    one_thread()
    settings = work.settings
    classifier = classifier_of(settings, store.get(work.reads["weights"]), work.context["device"])
    split = split_of(work.context["dataset"], work.context["split"])
    images, labels, ids = split.batch(slice(settings["start"], settings["stop"]))
    evaluation = cast("Evaluation", create(("attack", "corruption"), settings["evaluation"]))
    judged = judge(classifier, images, labels, ids, evaluation, settings["seed"], settings["batch"])
    with tempfile.TemporaryDirectory(dir=work.folder.cache) as name:
        path = Path(name) / "rows.parquet"
        ledger.write(ledger.table(judged.rows), path)
        rows = store.put(path, "rows.parquet")
    return work.manifest(
        files={"rows": rows},
        metrics={"samples": len(judged.rows)},
        timings={"seconds": judged.seconds, "peak_bytes": float(judged.peak_bytes)},
    )


def evaluate_works(
    study: Study,
    network: str,
    trained: Manifest,
    training: Work,
    evaluations: dict[str, Evaluation],
    data: Manifest,
    split: Split,
    checkpoint: str = "best",
) -> dict[tuple[str, int], Work]:
    """The shards of some evaluations of one network, by evaluation label and shard number."""
    digests, sizes = cast("dict[str, str]", data.facts["digests"]), cast("dict[str, int]", data.facts["sizes"])
    device = default_device()
    works = {}
    for label, method in evaluations.items():
        for shard, start in enumerate(range(0, sizes[split], study.shard)):
            works[label, shard] = evaluate.work(
                label=f"{network}{'' if checkpoint == 'best' else '@' + checkpoint}/{split}/{label}/{shard}",
                settings={
                    "model": training.settings["model"],
                    "inputs": training.settings["inputs"],
                    "evaluation": method.settings(),
                    "seed": study.evaluation_seed,
                    "start": start,
                    "stop": min(start + study.shard, sizes[split]),
                    "batch": study.batch,
                },
                reads={"weights": trained.files[checkpoint].sha256, "data": digests[split]},
                roots=modules_behind(method, *_models(study, training)),
                numerics=Numerics.of(device),
                context={"dataset": study.dataset.settings(), "split": split, "device": device},
                home=training.folder,
            )
    return works


def _models(study: Study, training: Work) -> list[object]:
    return [entry.method for entry in study.models if entry.method.settings() == training.settings["model"]]
