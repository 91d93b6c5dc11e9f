"""Foreign models as tasks: loaded from where they lie, examined once, and rebuilt for every shard that judges them.

What a result depends on is in the key: the digest of the file, or of the weights and the code that a factory runs; and
the preparation that the probe found. Where the model lies is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from tasks.cache import Numerics, Work, cached_task
from tasks.code import location, modules_behind
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.networks import default_device, one_thread, split_of
from tasks.stopping import stops_between_passes
from tasks.store import Store

if TYPE_CHECKING:
    from robust.classifier import Classifier
    from robust.datasets.dataset import Dataset
    from robust.foreign.loaded import Loaded
    from robust.foreign.probe import Examination
    from robust.foreign.request import Request
    from robust.judging import Evaluation

ROOTS = ("robust.foreign.loading", "robust.foreign.preparation")


class OtherModel(RuntimeError):  # noqa: N818 - reads as the message it is
    """A model is not the one that the work was planned for."""


@dataclass(frozen=True)
class Subject:
    """A model under evaluation: what it is, what it depends on, and where tasks find it."""

    request: Request
    identity: str
    form: str
    modules: tuple[str, ...]
    data: Dataset
    home: Home

    @property
    def context(self) -> dict[str, Any]:
        """What a task needs to load it again, and no result depends on."""
        request = self.request
        return {
            "foreign": {"model": request.model, "folder": request.folder, "trust": list(request.trust)},
            "dataset": request.data().settings(),
            "split": request.split,
            "device": default_device(),
            "surrogates": {},
        }

    def work(self, task: Any, label: str, settings: dict[str, Any], *methods: Any) -> Work:
        """A piece of work on this model."""
        found: Work = task.work(
            label=label,
            settings=settings,
            reads={"model": self.identity, "data": self.data.digest},
            roots=(*ROOTS, *self.modules, *modules_behind(*methods)),
            numerics=Numerics.of(default_device()),
            context=self.context,
            home=self.home,
        )
        return found


def subject_of(request: Request, home: Home) -> Subject:
    """Load the model once and read off what identifies it.

    Raises:
        ForeignError: if it cannot be loaded.
    """
    data = split_of(request.data().settings(), request.split)
    loaded = load_again(request.model_dump(mode="json"))
    from robust.foreign.loading import loader_of

    name = loader_of(_source(request.model_dump(mode="json")))
    loader = () if name == "pickled" else (f"robust.foreign.{name}",)
    modules = tuple(module for module in loaded.modules if location(module) is not None)
    return Subject(request, identity_of(loaded, data), loaded.form, (*loader, *modules), data, home)


def load_again(where: dict[str, Any]) -> Loaded:
    """The model that `{model, folder, trust}` names."""
    from robust.foreign.loading import load

    return load(_source(where))


def _source(where: dict[str, Any]) -> Any:
    from robust.foreign.loaded import Source

    text = where["model"]
    if text.startswith("models:/"):
        from tasks.mlflow_model import downloaded

        text = str(downloaded(text, Home.current()))
    return Source.of(text, where["folder"], tuple(where["trust"]))


def identity_of(loaded: Loaded, data: Dataset | None = None) -> str:
    """The digest of the file; else of the weights; else, for a function without any, of its answers to some images."""
    import torch

    if loaded.digest:
        return loaded.digest
    seen = hashlib.sha256()
    state = loaded.module.state_dict()
    for name, value in state.items():
        seen.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().reshape(-1).contiguous()  # a counter of batches has no dimension to be viewed along
        seen.update(flat.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    if not state and data is not None:
        images, _, _ = data.batch(slice(0, 8))
        try:
            with torch.no_grad():
                seen.update(loaded.module(images).double().cpu().numpy().tobytes())
        except (RuntimeError, ValueError, TypeError, IndexError) as error:  # another shape: the probe finds it out
            seen.update(type(error).__name__.encode())
    return seen.hexdigest()


def classifier_again(work: Work) -> Classifier:
    """The model behind its preparation, on the device of the work.

    Raises:
        OtherModel: if it changed since the work was planned.
    """
    from robust.foreign.preparation import Preparation, prepared

    loaded = load_again(work.context["foreign"])
    found = identity_of(loaded, split_of(work.context["dataset"], work.context["split"]))
    if found != work.reads["model"]:
        raise OtherModel(
            f"{work.context['foreign']['model']} is another model each time it is loaded, or was changed meanwhile; "
            "let the factory load its weights from a file, or seed what it draws"
        )
    preparation = Preparation.model_validate(work.settings["foreign"])
    classifier = prepared(loaded.module, preparation).to(work.context["device"]).eval().requires_grad_(False)
    stops_between_passes(classifier)
    return classifier


@cached_task("probe", version=1, roots=("robust.foreign.probe",))
def probe(work: Work, store: Store) -> Manifest:
    """What the network expects, found out on labelled images, with the mistakes that were recognised."""
    from robust.foreign.hypotheses import Declared
    from robust.foreign.probe import examine, taken_as_declared

    one_thread()
    loaded = load_again(work.context["foreign"])
    loaded.module.to(work.context["device"])
    declared = Declared(**{name: tuple(values) for name, values in work.settings["declared"].items()})
    data = split_of(work.context["dataset"], work.context["split"])
    found = (examine if work.settings["probe"] else taken_as_declared)(loaded, data, declared)
    content = json.dumps(found.to_json(), sort_keys=True).encode()
    return work.manifest(files={"examination": store.put(content, "examination.json")})


def probe_work(subject: Subject) -> Work:
    """The probing of a model, on the whole split: how few samples are to be attacked must not make it guess."""
    request = subject.request.model_copy(update={"samples": None})
    whole = replace(subject, request=request, data=split_of(request.data().settings(), request.split))
    declared = {name: list(values) for name, values in asdict(request.declared).items()}
    settings = {"declared": declared, "probe": request.probe}
    return whole.work(probe, f"probe/{request.model}", settings, request.data())


def evaluate_works(
    subject: Subject, examination: Examination, evaluations: dict[str, Evaluation]
) -> Iterator[tuple[int, str, Work]]:
    """Shard number, label and work of every evaluation, shard by shard."""
    from tasks.evaluate import evaluate

    request, count = subject.request, len(subject.data)
    for shard, start in enumerate(range(0, count, request.shard)):
        for label, method in evaluations.items():
            settings = {
                "foreign": examination.preparation.model_dump(mode="json"),
                "evaluation": method.settings(),
                "seed": request.seed,
                "start": start,
                "stop": min(start + request.shard, count),
                "batch": request.batch,
                "certify_first": request.certify_first,
            }
            yield shard, label, subject.work(evaluate, f"{request.model}/{label}/{shard}", settings, method)


def diagnose_work(subject: Subject, examination: Examination, evaluations: dict[str, Evaluation]) -> Work | None:
    """The validity checks; None where gradients cannot be had, or none are asked for."""
    from robust.evaluation import threats_of
    from tasks.diagnose import diagnose

    request = subject.request
    threats = list(dict.fromkeys(t for t in threats_of(evaluations).values() if t.eps))
    if examination.access != "gradient" or not request.validity or not threats:
        return None
    settings = {
        "foreign": examination.preparation.model_dump(mode="json"),
        "network": request.model,
        "threats": [threat.model_dump(mode="json") for threat in threats],
        "samples": request.validity,
        "seed": request.seed,
    }
    return subject.work(diagnose, f"{request.model}/validity", settings)


def examples_work(
    subject: Subject, examination: Examination, label: str, method: Evaluation, samples: list[int]
) -> Work:
    """The pictures of one attack."""
    from tasks.examples import examples

    request = subject.request
    settings = {
        "foreign": examination.preparation.model_dump(mode="json"),
        "evaluation": method.settings(),
        "samples": list(samples),
        "seed": request.seed,
        "batch": request.batch,
        "certify_first": request.certify_first,
    }
    return subject.work(examples, f"{request.model}/{label}", settings, method)


def examination_of(manifest: Manifest, store: Store) -> Examination:
    """What the probe stored."""
    from robust.foreign.probe import Examination

    return Examination.from_json(cast("dict[str, Any]", json.loads(store.read(manifest.files["examination"]))))
