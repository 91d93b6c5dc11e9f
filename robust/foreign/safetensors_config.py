"""A safetensors file with a configuration beside it: the form in which this package keeps its own networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of
from robust.foreign.weights import put, read_weights
from robust.method import canonical_json
from robust.models.model import Inputs, Model
from robust.registry import create


def load(source: Source) -> Loaded:
    """Build the registered model that the configuration names, and fill it.

    The configuration is `FILE.json` or `config.json` beside the weights: `{"model": {"name": "small-cnn"}, "inputs":
    {"shape": [1, 28, 28], "num_classes": 10, "mean": [0.1307], "std": [0.3081]}}`. Its normalisation is part of it.

    Raises:
        ForeignError: if the configuration is missing or does not describe a network of these weights.
    """
    path = source.path(source.text)
    places = (path.with_suffix(".json"), path.with_name("config.json"))
    config = next((place for place in places if place.is_file()), None)
    if config is None:
        raise ForeignError(
            f"{path} needs a configuration beside it, {places[0].name} or config.json, with model and inputs; "
            "for an architecture of torchvision or timm write NAME@FILE"
        )
    return of_files(source, path, config)


def of_files(source: Source, path: Path, config: Path) -> Loaded:
    """The network of a weights file and a configuration file."""
    settings = _settings(config)
    try:
        model = create("model", settings["model"])
        inputs = Inputs.model_validate(settings["inputs"])
        if not isinstance(model, Model):
            raise ForeignError(f"{config}: model: {settings['model']} is no model")
        classifier = model.classifier(inputs)
    except (ValidationError, ValueError) as error:
        raise ForeignError(f"{config}: {error}") from error
    put(classifier.module, read_weights(source, path), path)
    form = f"{model.name} of this package, weights from {path.name}"
    return Loaded(classifier.eval(), form, digest_of(path, also=canonical_json(settings)))


def _settings(config: Path) -> dict[str, Any]:
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ForeignError(f"{config} is not JSON: {error}") from error
    if not isinstance(settings, dict) or not {"model", "inputs"} <= settings.keys():
        raise ForeignError(f"{config} needs the keys model and inputs")
    return settings
