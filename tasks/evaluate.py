"""Evaluate: one network, one evaluation, one shard of samples; ledger rows as parquet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, classifier_of, data_of, default_device, network_of, one_thread, split_of
from tasks.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from robust.attacks.attack import Context
    from robust.corruptions.corruption import Corruption
    from robust.datasets.dataset import Split
    from robust.judging import Evaluation
    from robust.study import Study
    from robust.study_entries import EvaluationEntry


@cached_task("evaluate", version=1, roots=("robust.judging",))
def evaluate(work: Work, store: Store) -> Manifest:
    """Judge one shard; labels of model and evaluation are added when the ledger is put together."""
    from robust import ledger
    from robust.attacks.attack import Attack
    from robust.judging import judge
    from robust.registry import create

    one_thread()
    settings = work.settings
    classifier, split = network_of(work, store), data_of(work)
    images, labels, ids = split.batch(slice(settings["start"], settings["stop"]))
    images = shifted(images, ids, settings)
    evaluation = cast("Evaluation", create(("attack", "corruption"), settings["evaluation"]))
    if isinstance(evaluation, Attack) and evaluation.needs:
        evaluation = evaluation.bind(classifier, _context(work, store))
    judged = judge(
        classifier, images, labels, ids, evaluation, settings["seed"], settings["batch"], settings["certify_first"]
    )
    with tempfile.TemporaryDirectory(dir=work.folder.cache) as name:
        path = Path(name) / "rows.parquet"
        ledger.write(ledger.table(judged.rows), path)
        rows = store.put(path, "rows.parquet")
    return work.manifest(
        files={"rows": rows},
        metrics={"samples": len(judged.rows)},
        timings={"seconds": judged.seconds, "peak_bytes": float(judged.peak_bytes)},
    )


def shifted(images: Tensor, ids: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """The images after the corruption that comes before the evaluation, where the settings name one."""
    from robust.randomness import Randomness
    from robust.registry import create

    if "after" not in settings:
        return images
    first = cast("Corruption", create("corruption", settings["after"]))
    return first.apply(images, Randomness.of(settings["seed"], ids, first.name))


def _context(work: Work, store: Store) -> Context:
    """What the adversary may have beside the classifier: a surrogate of the study, images of the select split."""
    from robust.attacks.attack import Context

    surrogates = {
        name: classifier_of(settings, store.get(work.reads[f"surrogate/{name}"]), work.context["device"])
        for name, settings in work.context.get("surrogates", {}).items()
    }
    images, labels, _ = split_of(work.context["dataset"], "select").batch(slice(None))
    return Context(models=surrogates, images=images, labels=labels, seed=work.settings["seed"])


def evaluate_works(
    study: Study,
    built: Built,
    evaluations: Iterable[EvaluationEntry],
    data: Manifest,
    split: Split,
    checkpoint: str = "best",
    others: Mapping[str, Built] | None = None,
) -> dict[tuple[str, int], Work]:
    """The shards of some evaluations of one network, by evaluation label and shard number.

    Entries that are not for this network are left out. `others` are all networks of the study by id, from which
    attacks take their surrogates.
    """
    digests, sizes = cast("dict[str, str]", data.facts["digests"]), cast("dict[str, int]", data.facts["sizes"])
    device = default_device()
    works = {}
    for entry in evaluations:
        if not entry.on.covers(built.network.group):
            continue
        label, method = entry.label, entry.method
        reads, surrogates = _needs(method, built, others or {}, digests)
        samples = min(sizes[split], entry.on.samples or sizes[split])
        for shard, start in enumerate(range(0, samples, study.shard)):
            works[label, shard] = evaluate.work(
                label=f"{built.id}{'' if checkpoint == 'best' else '@' + checkpoint}/{split}/{label}/{shard}",
                settings={
                    **built.parts,
                    "evaluation": method.settings(),
                    **({} if entry.after is None else {"after": entry.after.settings()}),
                    "seed": study.evaluation_seed,
                    "start": start,
                    "stop": min(start + study.shard, samples),
                    "batch": study.batch,
                    "certify_first": study.certify_first,
                },
                reads={**built.reads(checkpoint), "data": digests[split], **reads},
                roots=modules_behind(method, *built.methods, *(() if entry.after is None else (entry.after,))),
                numerics=Numerics.of(device),
                context={
                    "dataset": study.dataset.settings(),
                    "split": split,
                    "device": device,
                    "surrogates": surrogates,
                },
                home=built.home,
            )
    return works


def _needs(
    method: Evaluation, built: Built, others: Mapping[str, Built], digests: dict[str, str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Digests of what an attack reads beside the network under attack, and the settings that rebuild its surrogate."""
    needs = getattr(method, "needs", ())
    reads = {"select": digests["select"]} if "data" in needs else {}
    if "models" not in needs:
        return reads, {}
    name = getattr(method, "surrogate", "")
    for candidate in (name, f"{name}.{built.network.seed}"):
        if candidate in others:
            other = others[candidate]
            return {**reads, f"surrogate/{name}": other.weights()}, {name: other.parts}
    raise ValueError(f"{method.name}: no network of the study is called {name!r}; there are {', '.join(others)}")
