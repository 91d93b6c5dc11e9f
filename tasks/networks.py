"""What tasks need to touch data and networks: a split by its settings, a classifier by its weights, a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robust.method import canonical_json
from tasks.devices import DeviceError
from tasks.stopping import stops_between_passes

if TYPE_CHECKING:
    from robust.classifier import Classifier
    from robust.datasets.dataset import Dataset, Split
    from robust.defences.defence import Material
    from robust.method import Method
    from robust.study import Network
    from tasks.home import Home
    from tasks.manifest import Manifest
    from tasks.store import Store
    from tasks.work import Work

SNAPSHOT = "epoch-"  # role of a snapshot among the files of a training


@dataclass(frozen=True)
class Built:
    """A classifier of a study after its training: what rebuilds it, and which code that takes."""

    network: Network
    training: Work
    trained: Manifest

    @property
    def id(self) -> str:
        """The network's id in ledger and report."""
        return self.network.id

    @property
    def parts(self) -> dict[str, Any]:
        """The settings that `classifier_of` rebuilds it from."""
        parts = {name: self.training.settings[name] for name in ("model", "inputs")}
        defence = self.network.defence
        if defence is None:
            return parts
        parts["defence"] = defence.method.settings()
        if defence.method.needs:
            parts["fitted_to"] = {"objective": self.training.settings["objective"], "seed": self.network.seed}
        return parts

    @property
    def methods(self) -> tuple[Method, ...]:
        """The architecture, and the defence where there is one."""
        defence = self.network.defence
        return (self.network.model.method, *(() if defence is None else (defence.method,)))

    def weights(self, checkpoint: str = "best") -> str:
        """Digest of the weights: `best` or `last`."""
        return self.trained.files[checkpoint].sha256

    def reads(self, checkpoint: str = "best") -> dict[str, str]:
        """Digests of the weights, and of what its defence is fitted to."""
        found = {"weights": self.weights(checkpoint)}
        needs = self.network.defence.method.needs if self.network.defence else ()
        if "train" in needs:
            found["train"] = self.training.reads["train"]
        if "snapshots" in needs:
            found |= snapshots_of(self.trained)
        return found

    @property
    def home(self) -> Home:
        """Where its tasks work."""
        return self.training.folder


def snapshots_of(trained: Manifest) -> dict[str, str]:
    """Digests of the weights after the epochs that were kept, by role `epoch-<number>`."""
    return {role: file.sha256 for role, file in trained.files.items() if role.startswith(SNAPSHOT)}


def split_of(settings: Mapping[str, Any], split: Split) -> Dataset:
    """A split of a dataset given by its settings; read once a process."""
    return _split(canonical_json(dict(settings)), split)


@lru_cache(maxsize=16)
def _split(settings: str, split: Split) -> Dataset:
    import json

    from robust.datasets.dataset import DatasetSpec
    from robust.registry import create

    return cast("DatasetSpec", create("dataset", json.loads(settings))).load(split)


def classifier_of(
    settings: Mapping[str, Any], weights: Path, device: str, material: Material | None = None
) -> Classifier:
    """A trained classifier in eval mode without gradients to its weights: settings hold `model`, `inputs`, `defence`.

    `material` is what the defence is fitted to, where it needs any. Built anew for every call: tasks run in threads,
    and a module shared between threads is shared state.
    """
    from robust.checkpoint import load_weights
    from robust.defences.defence import Defence
    from robust.models.model import Inputs, Model
    from robust.registry import create

    model = cast("Model", create("model", settings["model"]))
    classifier = model.classifier(Inputs.model_validate(settings["inputs"]))
    load_weights(classifier, weights)
    classifier = classifier.to(device).eval().requires_grad_(False)
    if settings.get("defence") is not None:
        defence = cast("Defence", create("defence", settings["defence"]))
        classifier = (defence.bind(classifier, material) if material else defence).wrap(classifier)
    stops_between_passes(classifier)
    return classifier


def material_of(work: Work, store: Store) -> Material | None:
    """What the defence of a task's network is fitted to: training samples and snapshots; None where it needs none."""
    from robust.defences.defence import Material
    from robust.objectives.objective import Objective
    from robust.registry import create
    from robust.training import fitted_samples

    fitted = work.settings.get("fitted_to")
    if fitted is None:
        return None
    objective = cast("Objective", create("objective", fitted["objective"]))
    train = split_of(work.context["dataset"], "train")
    return Material(fitted_samples(objective, train, fitted["seed"]), snapshot_networks(work, store))


def snapshot_networks(work: Work, store: Store) -> dict[int, Callable[[], Classifier]]:
    """Epoch -> the undefended network as it was after that epoch, for the snapshots that the task reads."""
    parts = {name: work.settings[name] for name in ("model", "inputs")}
    epochs = {int(role.removeprefix(SNAPSHOT)): sha for role, sha in work.reads.items() if role.startswith(SNAPSHOT)}
    return {
        epoch: partial(classifier_of, parts, store.get(sha), work.context["device"])
        for epoch, sha in sorted(epochs.items())
    }


def network_of(work: Work, store: Store) -> Classifier:
    """The classifier that a task is about: a trained one out of the store, or somebody's, loaded from where it lies."""
    if "foreign" in work.settings:
        from tasks.foreign import classifier_again

        return classifier_again(work)
    weights, material = store.get(work.reads["weights"]), material_of(work, store)
    return classifier_of(work.settings, weights, work.context["device"], material)


def data_of(work: Work) -> Dataset:
    """The split that a task is about (test unless it says otherwise), in the shape that its network takes."""
    from robust.datasets.adapt import adapt

    data = split_of(work.context["dataset"], work.context.get("split", "test"))
    return adapt(data, tuple(work.settings["foreign"]["shape"])) if "foreign" in work.settings else data


def default_device() -> str:
    """The kind of device that tasks compute on: what ROBUST_DEVICE says, else cuda where there is one, else cpu.

    Raises:
        DeviceError: if ROBUST_DEVICE is neither cpu nor cuda, or says cuda where torch sees none.
    """
    import torch

    asked = os.environ.get("ROBUST_DEVICE", "")
    if asked not in ("", "cpu", "cuda"):
        raise DeviceError(f"ROBUST_DEVICE={asked}: use cpu or cuda; CUDA_VISIBLE_DEVICES says which GPUs")
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "ROBUST_DEVICE=cuda, but torch sees no GPU; look at CUDA_VISIBLE_DEVICES and at robust doctor"
        )
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def one_thread() -> None:
    """One thread within an operation: shards run side by side, and the count must not show in the bytes."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    # for the whole process: threads that switch it off and on again would race
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
