"""Examples: the attacked images that a report shows, made again from their seeds instead of stored for all samples."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.evaluate import shifted
from tasks.manifest import Manifest
from tasks.networks import Built, data_of, network_of, one_thread
from tasks.store import Store

if TYPE_CHECKING:
    from robust.attacks.attack import Attack
    from robust.study import Study


@cached_task("examples", version=1, roots=("robust.judging",))
def examples(work: Work, store: Store) -> Manifest:
    """Clean and attacked images of a few samples as uint8, rounded inside the ball."""
    import numpy as np
    import torch

    from robust.judging import judge
    from robust.registry import create

    one_thread()
    settings = work.settings
    classifier, split = network_of(work, store), data_of(work)
    position = {int(sample): row for row, sample in enumerate(split.ids)}
    images, labels, ids = split.batch([position[sample] for sample in settings["samples"]])
    images = shifted(images, ids, settings)
    attack = cast("Attack", create("attack", settings["evaluation"]))
    judged = judge(
        classifier, images, labels, ids, attack, settings["seed"], settings["batch"], settings["certify_first"]
    )
    rounded = attack.threat.round_inside(judged.images.float(), images)
    with torch.no_grad():
        clean = classifier(images.to(classifier.device, classifier.dtype)).argmax(1).cpu()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        sample=ids.numpy(),
        label=labels.numpy(),
        prediction_clean=clean.numpy(),
        prediction_adv=judged.rows["prediction"].to_numpy(),
        clean=(images * 255).round().to(torch.uint8).numpy(),
        adversarial=(rounded * 255).round().to(torch.uint8).numpy(),
    )
    return work.manifest(files={"images": store.put(buffer.getvalue(), "examples.npz")})


def examples_work(study: Study, built: Built, label: str, samples: list[int], data: Manifest) -> Work:
    """The pictures of one attack on one network."""
    entry = next(entry for entry in study.evaluations if entry.label == label)
    method, after = entry.method, () if entry.after is None else (entry.after,)
    return examples.work(
        label=f"{built.id}/{label}",
        settings={
            **built.parts,
            "evaluation": method.settings(),
            **({} if entry.after is None else {"after": entry.after.settings()}),
            "samples": list(samples),
            "seed": study.evaluation_seed,
            "batch": study.batch,
            "certify_first": study.certify_first,
        },
        reads={
            **built.reads(),
            "data": cast("dict[str, str]", data.facts["digests"])["test"],
        },
        roots=modules_behind(method, *built.methods, *after),
        numerics=Numerics.of(str(built.training.context["device"])),
        context={"dataset": study.dataset.settings(), "device": built.training.context["device"]},
        home=built.home,
    )


def pictures(manifest: Manifest, network: str, label: str, store: Store) -> list[dict[str, Any]]:
    """The stored images as the rows that `robust.report` takes."""
    import numpy as np

    with np.load(io.BytesIO(store.read(manifest.files["images"])), allow_pickle=False) as found:
        arrays = dict(found)
    return [
        {"evaluation": label, "model": network, **{name: values[i] for name, values in arrays.items()}}
        for i in range(len(arrays["sample"]))
    ]
