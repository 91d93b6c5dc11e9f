"""`models:/name@alias`: a registered model as local files, from the home's registry or that of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from tasks.home import Home
from tasks.mlflow_connection import translated
from tasks.store import moved_into


def downloaded(uri: str, home: Home) -> Path:
    """The weights file of a model that this product registered, with its configuration beside it.

    Raises:
        ForeignError: if the model is of another make: loading it would run its code.
        TrackingAway: if the registry cannot be reached; TrackingRefused: if it has no such model.
    """
    from robust.foreign.loaded import ForeignError
    from tasks.registered import Registry

    registry = Registry(home)
    client = registry.client
    with translated(), tempfile.TemporaryDirectory(dir=home.cache) as folder:
        import mlflow

        mlflow.set_tracking_uri(registry.uri)
        mlflow.set_registry_uri(registry.uri)
        name, at, alias = uri.removeprefix("models:/").partition("@")
        # an alias moves, a version does not
        stamp = f"{name}-{client.get_model_version_by_alias(name, alias).version}" if at else name.replace("/", "-")
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        parts = _parts(found)
        if not {"weights", "config"} <= parts.keys():
            raise ForeignError(
                f"{uri} is not a model of this package (weights and config), and loading it would run its code; "
                "load it in a function of yours and give module:function"
            )
        weights = home.cache / "models" / f"{stamp}.safetensors"
        for path, source in ((weights, parts["weights"]), (weights.with_suffix(".json"), parts["config"])):
            with moved_into(path) as stream:
                stream.write((found / source).read_bytes())
    return weights


def _parts(folder: Path) -> dict[str, str]:
    """The files that the model's description names, by role."""
    flavours = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")).get("flavors", {})
    artifacts = flavours.get("python_function", {}).get("artifacts") or {}
    return {role: str(entry["path"]) for role, entry in artifacts.items()}
