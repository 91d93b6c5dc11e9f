"""Certify: one network, one certificate, one shard of samples; proofs as ledger rows."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import modules_behind
from tasks.manifest import Manifest
from tasks.networks import Built, classifier_of, default_device, one_thread, split_of
from tasks.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from robust.certificates.certificate import Certificate, Certified
    from robust.classifier import Classifier
    from robust.randomness import Randomness
    from robust.study import Study

logger = logging.getLogger("robust.certify")


@cached_task("certify", version=1, roots=("robust.certificates.certificate", "robust.certificates.bounds"))
def certify(work: Work, store: Store) -> Manifest:
    """Verdict and radius of each sample; a network that the certificate cannot read is unknown throughout."""
    import pandas as pd
    import torch

    from robust import ledger
    from robust.certificates.certificate import VERDICTS
    from robust.randomness import Randomness
    from robust.registry import create

    one_thread()
    settings = work.settings
    classifier = classifier_of(settings, store.get(work.reads["weights"]), work.context["device"])
    certificate = cast("Certificate", create("certificate", settings["certificate"]))
    split = split_of(work.context["dataset"], "test")
    images, labels, ids = split.batch(slice(settings["start"], settings["stop"]))
    rng = Randomness.of(settings["seed"], ids, certificate.name)
    found = [
        _certified(certificate, classifier, images[part], labels[part], rng.select(part))
        for part in torch.arange(len(labels)).split(settings["batch"])
    ]
    rows = pd.DataFrame({"sample": ids.numpy(), "label": labels.numpy()})
    rows["certificate"] = [VERDICTS[int(verdict)] for part in found for verdict in part.verdict]
    rows["radius"] = torch.cat([part.radius.double().cpu() for part in found]).numpy()
    with tempfile.TemporaryDirectory(dir=work.folder.cache) as name:
        path = Path(name) / "rows.parquet"
        ledger.write(ledger.table(rows), path)
        stored = store.put(path, "rows.parquet")
    return work.manifest(files={"rows": stored}, metrics={"samples": len(rows)})


def _certified(
    certificate: Certificate, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness
) -> Certified:
    import torch

    from robust.certificates.bounds import Unsupported
    from robust.certificates.certificate import UNKNOWN, Certified

    x, y = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
    try:
        return certificate.certify(classifier, x, y, rng)
    except Unsupported as error:
        logger.warning("%s proves nothing here: %s", certificate.name, error)
        return Certified(torch.full_like(y, UNKNOWN), torch.zeros(len(y), dtype=torch.float64))


def certify_works(study: Study, built: Built, data: Manifest) -> dict[tuple[str, int], Work]:
    """The shards of all certificates of one network, by certificate label and shard number."""
    digests, sizes = cast("dict[str, str]", data.facts["digests"]), cast("dict[str, int]", data.facts["sizes"])
    device = default_device()
    return {
        (entry.label, shard): certify.work(
            label=f"{built.id}/{entry.label}/{shard}",
            settings={
                **built.parts,
                "certificate": entry.method.settings(),
                "seed": study.evaluation_seed,
                "start": start,
                "stop": min(start + study.shard, sizes["test"]),
                "batch": study.batch,
            },
            reads={"weights": built.weights(), "data": digests["test"]},
            roots=modules_behind(entry.method, *built.methods),
            numerics=Numerics.of(device),
            context={"dataset": study.dataset.settings(), "device": device},
            home=built.home,
        )
        for entry in study.certificates
        for shard, start in enumerate(range(0, sizes["test"], study.shard))
    }


def certificate_rows(study: Study, rows: pa.Table) -> list[dict[str, Any]]:
    """How many samples each certificate settles on each network: what report.json shows."""
    from robust.certificates.certificate import VERDICTS
    from robust.method import fraction_text

    frame = rows.select(["model", "evaluation", "certificate"]).to_pandas()
    methods = {entry.label: entry.method for entry in study.certificates}
    found = []
    for (model, label), group in frame[frame["evaluation"].isin(methods)].groupby(["model", "evaluation"], sort=True):
        threat = methods[label].threat
        counts = {verdict: int((group["certificate"] == verdict).sum()) for verdict in VERDICTS}
        eps = "" if threat.eps is None else fraction_text(threat.eps)
        found.append({"model": model, "name": label, "norm": threat.norm, "eps": eps, "n": len(group), **counts})
    return found
