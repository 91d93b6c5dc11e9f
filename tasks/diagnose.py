"""Diagnose: the validity checks of one network, which decide the words in front of its robust accuracies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, classifier_of, data_of, default_device, network_of, one_thread
from tasks.store import Store

if TYPE_CHECKING:
    from robust.study import Study
    from robust.threat import ThreatModel

LOOKED_AT = 4  # images offered for each sample that is looked at: only those classified correctly can be used


@cached_task("diagnose", version=1, roots=("robust.diagnostics.masking",))
def diagnose(work: Work, store: Store) -> Manifest:
    """Checks, the curves behind them, and the samples that the diagnostic attacks broke."""
    from robust.diagnostics.masking import diagnose
    from robust.threat import ThreatModel

    one_thread()
    settings, context = work.settings, work.context
    classifier = network_of(work, store)
    surrogates = {
        name: classifier_of(parts, store.get(work.reads[f"surrogate/{name}"]), context["device"])
        for name, parts in context["surrogates"].items()
    }
    images, labels, ids = data_of(work).batch(slice(0, LOOKED_AT * settings["samples"]))
    found = diagnose(
        classifier,
        images.to(classifier.device),
        labels.to(classifier.device),
        ids,
        [ThreatModel.model_validate(threat) for threat in settings["threats"]],
        settings["seed"],
        model=settings["network"],
        samples=settings["samples"],
        surrogates=surrogates,
    )
    content = json.dumps(found.to_json(), sort_keys=True).encode()
    return work.manifest(files={"diagnosis": store.put(content, "diagnosis.json")})


def threats_of(study: Study, built: Built) -> list[ThreatModel]:
    """The threat models that the study's attacks claim numbers of this network for, each once."""
    from robust.attacks.attack import Attack

    entries = [entry for entry in study.evaluations if entry.on.covers(built.network.group)]
    found = [entry.method.threat for entry in entries if isinstance(entry.method, Attack)]
    return [threat for i, threat in enumerate(found) if threat.eps is not None and threat not in found[:i]]


def diagnose_work(study: Study, built: Built, networks: Mapping[str, Built], data: Manifest) -> Work | None:
    """The validity checks of one network; None where the study makes no claim that needs them.

    The first other network of the same seed is the surrogate of the transfer check.
    """
    threats = threats_of(study, built)
    if not threats or not study.validity:
        return None
    reads = {**built.reads(), "data": cast("dict[str, str]", data.facts["digests"])["test"]}
    surrogates = {}
    for other in networks.values():
        if other.trained.key != built.trained.key and other.network.seed == built.network.seed:
            reads[f"surrogate/{other.id}"] = other.weights()
            surrogates[other.id] = other.parts
            break
    device = default_device()
    return diagnose.work(
        label=built.id,
        settings={
            **built.parts,
            "network": built.id,
            "threats": [threat.model_dump(mode="json") for threat in threats],
            "samples": study.validity,
            "seed": study.evaluation_seed,
        },
        reads=reads,
        roots=modules_behind(*(entry.method for entry in study.models), *built.methods),
        numerics=Numerics.of(device),
        context={"dataset": study.dataset.settings(), "device": device, "surrogates": surrogates},
        home=built.home,
    )
