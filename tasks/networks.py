"""What tasks need to touch data and networks: a split by its settings, a classifier by its weights, a device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robust.method import canonical_json

if TYPE_CHECKING:
    from robust.classifier import Classifier
    from robust.datasets.dataset import Dataset, Split

NETWORK_PARTS = ("model", "inputs")  # the settings that rebuild a network


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
    """A trained classifier in eval mode without gradients to its weights: settings hold `model` and `inputs`.

    Built anew for every call: tasks run in threads, and a module shared between threads is shared state.
    """
    from robust.checkpoint import load_weights
    from robust.models.model import Inputs, Model
    from robust.registry import create

    model = cast("Model", create("model", settings["model"]))
    classifier = model.classifier(Inputs.model_validate(settings["inputs"]))
    load_weights(classifier, weights)
    return classifier.to(device).eval().requires_grad_(False)


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
