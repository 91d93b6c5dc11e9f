"""What tasks need to touch data and networks: a split by its settings, a classifier by its weights, a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robust.method import canonical_json

if TYPE_CHECKING:
    from robust.classifier import Classifier
    from robust.datasets.dataset import Dataset, Split
    from robust.method import Method
    from robust.study import Network
    from tasks.home import Home
    from tasks.manifest import Manifest
    from tasks.work import Work


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
        return parts if defence is None else {**parts, "defence": defence.method.settings()}

    @property
    def methods(self) -> tuple[Method, ...]:
        """The architecture, and the defence where there is one."""
        defence = self.network.defence
        return (self.network.model.method, *(() if defence is None else (defence.method,)))

    def weights(self, checkpoint: str = "best") -> str:
        """Digest of the weights: `best` or `last`."""
        return self.trained.files[checkpoint].sha256

    @property
    def home(self) -> Home:
        """Where its tasks work."""
        return self.training.folder


def split_of(settings: Mapping[str, Any], split: Split) -> Dataset:
    """A split of a dataset given by its settings; read once a process."""
    return _split(canonical_json(dict(settings)), split)


@lru_cache(maxsize=16)
def _split(settings: str, split: Split) -> Dataset:
    import json

    from robust.datasets.dataset import DatasetSpec
    from robust.registry import create

    return cast("DatasetSpec", create("dataset", json.loads(settings))).load(split)


def classifier_of(settings: Mapping[str, Any], weights: Path, device: str) -> Classifier:
    """A trained classifier in eval mode without gradients to its weights: settings hold `model`, `inputs`, `defence`.

    Built anew for every call: tasks run in threads, and a module shared between threads is shared state.
    """
    from robust.checkpoint import load_weights
    from robust.defences.defence import Defence
    from robust.models.model import Inputs, Model
    from robust.registry import create

    model = cast("Model", create("model", settings["model"]))
    classifier = model.classifier(Inputs.model_validate(settings["inputs"]))
    load_weights(classifier, weights)
    classifier = classifier.to(device).eval().requires_grad_(False)
    if settings.get("defence") is None:
        return classifier
    return cast("Defence", create("defence", settings["defence"])).wrap(classifier)


def default_device() -> str:
    """cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def one_thread() -> None:
    """One thread within an operation: shards run side by side, and the count must not show in the bytes."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    # for the whole process: threads that switch it off and on again would race
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
